"""A campaign of faults: runs are killed, stopped and damaged, and must lose and hide nothing.

`python -m tests.faults [ROUNDS [SEED]]` from the repository's root is the long form; the suite has
the short one (test_faults.py). In every round, for each algorithm of CASES:

    kill         SIGKILL at a random moment of a run that begins or overwrites another
    in a save    SIGKILL at a random one of the calls that bring files to disk, before or after it
    signal       SIGINT, SIGTERM or SIGHUP at a random moment
    flip, cut    a random bit turned round, or a random length cut off, in each file that it reads

After a kill or a signal the run is resumed, or begun anew where it had not begun, and must end with
the same bytes in its checkpoints and metrics as a run that nothing happened to. After damage,
`evaluate` and `train --resume` must refuse it (status 2, one line), make the file anew (the cache),
warn of it, or do as if nothing had happened. A changed digit of a loss in metrics.jsonl or of a
setting in config.json cannot be told from an edit: it is counted as "taken for an edit", in these
two files only.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a fork has no threads

from scratchmeta.run.cli import main as scratchmeta

SMALL = ["--image-size", "16", "--validation-episodes", "2", "--n-query", "2", "--n-way", "3"]
LOOP = ["--steps", "12", "--validate-every", "3"]
CASES = {
    "prototypical": ["prototypical", *SMALL, *LOOP, "--channels", "2"],
    "maml": ["maml", "--data", "sinusoids", "--tasks", "2", "--k-shot", "3", "--n-query", "3",
             "--hidden", "4", "--validation-episodes", "3", *LOOP],
    "mann": ["mann", *SMALL, *LOOP, "--tasks", "2", "--controller", "6", "--rows", "6",
             "--width", "3"],
    "reptile": ["reptile", *SMALL, *LOOP, "--channels", "2", "--inner-steps", "2",
                "--eval-inner-steps", "2", "--tasks", "1"],
}  # fmt: skip
RESULTS = ("last.safetensors", "best.safetensors", "metrics.jsonl")
STOPS = ("kill", "in a save", "in a save", "signal")
READ_BY_PEOPLE = ("config.json", "metrics.jsonl")


class Campaign:
    """Runs in the folder `root`, all randomness from `seed`; `tally` counts what happened, and
    `failures` says what must not have."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root, self.rng = root, random.Random(seed)
        self.tally: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        os.environ["SCRATCHMETA_CACHE"] = str(root / "cache")
        self.wanted: dict[str, dict[str, bytes]] = {}
        self.seconds: dict[str, float] = {}
        self.answers: dict[str, str] = {}

    def prepare(self, name: str) -> None:
        """The run that nothing happens to."""
        run = self.root / f"{name}-whole"
        for _ in range(2):  # the first compiles
            began = time.monotonic()
            status, said = self.wait(self.start(["train", *CASES[name], *out(run)]))
            assert status == 0, said
            self.seconds[name] = time.monotonic() - began
        self.wanted[name] = results(run)
        self.answers[name] = self.evaluated(run)[1]

    # --- processes: forked, since importing takes longer than training ---

    def start(self, argv: list[str], sabotage=None) -> int:
        """A process that runs the command; `sabotage` is called in it first."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forking: the threads here are pytest's
            child = os.fork()
        if child:
            return child
        try:
            said = os.open(self.root / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(said, number)
            sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            warnings.simplefilter("default")  # as without pytest
            if sabotage:
                sabotage()
            status = scratchmeta(argv)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            status = 99
        os._exit(status)

    def wait(self, child: int) -> tuple[int, str]:
        """The exit status of a process, minus the signal that killed it, and what it printed."""
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, (self.root / "said").read_text(errors="replace")

    def evaluated(self, run: Path) -> tuple[int, str]:
        """What evaluate prints of a run, without progress."""
        status, said = self.wait(self.start(["evaluate", str(run), "--episodes", "3", "--json"]))
        return status, said.splitlines()[-1] if said else ""

    # --- kills and signals ---

    def stop(self, name: str, kind: str) -> None:
        """One process is killed or stopped, and what is left is finished."""
        run = self.root / "run"
        shutil.rmtree(run, ignore_errors=True)
        overwriting = self.rng.random() < 0.5
        if overwriting:
            shutil.copytree(self.root / f"{name}-whole", run)
        argv = ["train", *CASES[name], *out(run)]
        if kind == "in a save":
            calls = self.rng.randrange(60), self.rng.random() < 0.5
            child, signum = self.start(argv, lambda: kill_in_a_save(*calls)), signal.SIGKILL
        else:
            stops = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
            signum = self.rng.choice(stops) if kind == "signal" else signal.SIGKILL
            child = self.start(argv)
            time.sleep(self.rng.uniform(0, 1.1 * self.seconds[name]))
            os.kill(child, signum)
        status, said = self.wait(child)
        what = f"{name}: {kind} {signum.name}{', overwriting' if overwriting else ''}"
        expected = {0, -signum, 128 + signum}
        if status not in expected or (status == 0 and kind == "kill" and not run.exists()):
            self.failures.append(f"{what}: status {status}: {said}")
            return
        outcome = "came too late" if status == 0 else "resumed to the same bytes"
        status, said = self.wait(self.start(["train", "--resume", str(run)]))
        if status == 2 and ("not a run folder" in said or "--overwrite begins" in said):
            outcome = "begun anew to the same bytes"
            status, said = self.wait(self.start(argv))
        if status != 0 or results(run) != self.wanted[name]:
            self.failures.append(f"{what}: then status {status}: {said}")
            outcome = "FAILED"
        elif list(run.glob("*.partial")) or list(run.glob(".*.partial")):
            self.failures.append(f"{what}: left {list(run.glob('.*'))}")
            outcome = "FAILED"
        self.tally[kind, outcome] += 1

    # --- damage ---

    def damage(self, name: str, kind: str) -> None:
        """Each file that is read is damaged in turn, once."""
        whole, run = self.root / f"{name}-whole", self.root / "run"
        cached = sorted((self.root / "cache").glob("*.np[yz]"))
        for file in [*(whole / each for each in ("config.json", *RESULTS)), *cached]:
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(whole, run)
            target = run / file.name if file.parent == whole else file
            sound = file.read_bytes()
            at = self.rng.randrange(len(sound))
            bit = bytes([sound[at] ^ 1 << self.rng.randrange(8)])
            target.write_bytes(sound[:at] + bit + sound[at + 1 :] if kind == "flip" else sound[:at])
            what = f"{name}: {kind} in {file.name} at {at} of {len(sound)}"
            self.tally[f"{kind} in {file.name.split('.')[-1]}", self.judge(name, run, what)] += 1
            if file.parent != whole:
                target.write_bytes(sound)

    def judge(self, name: str, run: Path, what: str) -> str:
        """What became of a damaged run: in evaluate, and in going on to where it was."""
        found = []
        status, said = self.evaluated(run)
        found.append(self.verdict(what, status, said, said == self.answers[name]))
        status, said = self.wait(self.start(["train", "--resume", str(run)]))
        unread = "best.safetensors" if " in best" in what else ""  # by --resume
        same = results(run) | {unread: b""} == self.wanted[name] | {unread: b""}
        found.append(self.verdict(what, status, said, same))
        order = [
            "FAILED",
            "taken for an edit",
            "refused",
            "warned of",
            "as if nothing had happened",
        ]
        return min(found, key=order.index)

    def verdict(self, what: str, status: int, said: str, same: bool) -> str:
        """One command's answer to the damage."""
        if status == 2 and "Traceback" not in said and said.count("\n") <= 1:
            return "refused"
        if status == 0 and same:
            return "as if nothing had happened"
        if status == 0 and "scratchmeta: warning: " in said:
            return "warned of"
        if status == 0 and any(f"in {name} " in what for name in READ_BY_PEOPLE):
            return "taken for an edit"
        self.failures.append(f"{what}: status {status}: {said}")
        return "FAILED"

    def round(self, names: list[str]) -> None:
        """Every kind of fault, for each of the algorithms."""
        for name in names:
            if name not in self.wanted:
                self.prepare(name)
            for kind in STOPS:
                self.stop(name, kind)
            for kind in ("flip", "cut"):
                self.damage(name, kind)


def out(run: Path) -> list[str]:
    """The options for this folder, new or not."""
    return ["--out", str(run), "--overwrite"]


def results(run: Path) -> dict[str, bytes]:
    """What a run's steps have made."""
    return {name: (run / name).read_bytes() for name in RESULTS if (run / name).exists()}


def kill_in_a_save(number: int, before: bool) -> None:
    """Lets this process be killed at this one of the calls that bring files to disk."""
    calls = iter(range(10**9))

    def deadly(call):
        def counted(*args, **options):
            last = next(calls) == number
            if last and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **options)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    for name in ("replace", "fsync", "open", "unlink", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))


def main(argv: list[str]) -> int:
    """The long form; prints a table."""
    rounds, seed = (int(argv[i]) if len(argv) > i else default for i, default in ((0, 20), (1, 0)))
    with tempfile.TemporaryDirectory() as root:
        campaign = Campaign(Path(root), seed)
        for done in range(1, rounds + 1):
            campaign.round(list(CASES))
            print(f"round {done}/{rounds}", file=sys.stderr, flush=True)
    for (kind, outcome), times in sorted(campaign.tally.items()):
        print(f"{kind:<22}{outcome:<32}{times:>6}")
    print(f"{campaign.tally.total()} faults, {len(campaign.failures)} failures")
    print(*campaign.failures, sep="\n")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
