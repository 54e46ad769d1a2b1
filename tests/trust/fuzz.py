"""Fuzzing by the letter of our own OpenAPI document, with every check schemathesis has.

`python tests/trust/fuzz.py --minutes 10` runs until the time is up with ever new seeds; `make test` runs one bounded,
seeded round.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import hypothesis
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import Server


def unsayable(case):
    """What a schema cannot say.

    Random bytes are no photo, black gives no light, a direction and a spot must lead somewhere, key frames have the
    same lights.
    """
    body = case.body if isinstance(case.body, dict) else {}
    lights = body.get("lights") if isinstance(body.get("lights"), list) else []
    lights = [light for light in lights if isinstance(light, dict)]
    nowhere = any("target" in light and light["target"] == light.get("position") for light in lights)
    return (
        (case.path in ("/upload", "/job/{job_id}/environment", "/job/{job_id}/mask/{name}") and case.method != "GET")
        or nowhere
        or body.get("keyframes") is not None
        or any(light.get("direction") in ([0, 0, 0], (0, 0, 0)) or light.get("color") == "#000000" for light in lights)
    )


def fuzz(url, cases, seed, headers=None):
    """Try every operation with `cases` valid and as many invalid requests. Returns (requests made, faults)."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    made, faults = 0, []
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            count = [0]

            @hypothesis.seed(seed)
            @hypothesis.settings(
                max_examples=cases,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
                phases=[hypothesis.Phase.generate],
                report_multiple_bugs=False,
                print_blob=False,
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def attempt(case):
                count[0] += 1  # noqa: B023
                case.call_and_validate(
                    excluded_checks=[positive_data_acceptance] if unsayable(case) else [], headers=headers, timeout=60
                )

            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    attempt()
            except hypothesis.errors.Unsatisfiable:
                pass  # nothing about this operation can be said wrongly
            except BaseException as exc:
                if isinstance(exc, KeyboardInterrupt):
                    raise
                faults.append(
                    f"{operation.label} ({mode.name}): {type(exc).__name__}: {str(exc)[:1500]} "
                    f"{[str(e)[:700] for e in getattr(exc, 'exceptions', ())]}"
                )
            made += count[0]
    return made, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--cases", type=int, default=100)
    options = parser.parse_args()
    end, seed, total = time.monotonic() + 60 * options.minutes, int(time.time()), 0
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "jobs").wait()
        try:
            while time.monotonic() < end:
                made, faults = fuzz(f"http://127.0.0.1:{server.port}", options.cases, seed)
                total += made
                print(f"seed {seed}: {made} requests, {len(faults)} faults", flush=True)
                if faults:
                    print("\n\n".join(faults))
                    return 1
                seed += 1
        finally:
            server.kill()
    print(f"{total} requests, no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
