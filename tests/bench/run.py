#!/usr/bin/env python3
"""All benchmarks of the light, each against something measured in the same run: a table, and JSON with --json.

    python tests/bench/run.py [--only a,b,c,d,e,f] [--json out.json]

(a) the engine against tests/reference.py  (b) /preview on one core, in JPEG encodings  (c) /relight at 12 megapixels
(d) growth with pixels and lights  (e) against PyTorch eager (needs requirements-export.txt)  (f) eight clients at once
"""

import argparse
import json
import pathlib

import bench_eager
import bench_http
import bench_light


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="a,b,c,d,e,f")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    found = {}
    for which in arguments.only.split(","):
        found[which] = MEASURE[which]()
        print(SHOW[which](found[which]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1))


def show_a(rows):
    lines = ["(a)  megapixels   reference   one core   speed-up   all cores   memory   share of the reference's"]
    for r in rows:
        lines.append(
            f"     {r['megapixels']:10g} {r['reference_s']:10.2f}s {1e3 * r['one_core_s']:8.0f}ms "
            f"{r['speedup_one_core']:9.0f}x "
            f"{1e3 * r['all_cores_s']:8.0f}ms {r['fast_mb']:6.0f}MB {100 * r['memory_share']:10.0f} %   "
            f"({r['one_core_in_jpegs']:.1f} JPEGs; maps {1e3 * r['prepare_s']:.0f} ms once)"
        )
    return "\n".join(lines)


def show_b(r):
    stages = ", ".join(f"{k} {v:.1f}" for k, v in r["stages_ms"].items())
    return (
        f"(b)  preview 1024 px, one core: p50 {r['p50_ms']:.1f} ms = {r['p50_in_jpegs']:.1f} "
        f"JPEGs, p99 {r['p99_ms']:.1f} ms = "
        f"{r['p99_in_jpegs']:.1f}, processor time {r['processor_ms']:.1f} ms = "
        f"{r['processor_in_jpegs']:.1f} (a JPEG {r['jpeg_ms']:.2f} ms; stages, ms: {stages})"
    )


def show_c(r):
    stages = ", ".join(f"{k} {v:.2f}" for k, v in r.items() if k not in ("all", "first", "jpeg"))
    return (
        f"(c)  /relight 12 megapixels: {r['all']:.2f} s, of which {stages}"
        f" (the first, with its maps: {r['first']:.2f} s; a JPEG {r['jpeg']:.3f} s)"
    )


def show_d(r):
    pixels = ", ".join(
        f"{k} MP {1e3 * v:.1f} ms ({1e3 * v / float(k):.1f} a MP)" for k, v in r["by_megapixels"].items()
    )
    lights = ", ".join(f"{k}: {1e3 * v:.1f}" for k, v in r["by_lights"].items())
    return (
        f"(d)  by pixels: {pixels}\n     by lights at 1 MP, ms: {lights}; marching one shadow {1e3 * r['march']:.1f} ms"
    )


def show_e(rows):
    lines = []
    for r in rows:
        a, b = r["eager"], r["ours"]
        lines.append(
            f"(e)  {r['megapixels']} MP  first picture {a['first_picture_s']:.1f} s -> {b['first_picture_s']:.1f} s "
            f"({r['start_up_share']:.2f}); memory {a['rss_mb']:.0f} -> {b['rss_mb']:.0f} MB ({r['memory_share']:.2f}); "
            f"light change {1e3 * a['light_change_s']:.0f} -> {1e3 * b['light_change_s']:.0f} ms "
            f"({r['light_change_share']:.3f}); full size on disk {1e3 * b['full_relight_s']:.0f} ms"
        )
    return "\n".join(lines)


def show_f(r):
    return (
        f"(f)  8 clients: {r['per_second']:.0f} previews/s, p50 {r['p50_ms']:.0f} ms, p99 "
        f"{r['p99_ms']:.0f} ms; memory after 200 "
        f"{r['rss_early_mb']:.0f} MB, after {r['previews']} {r['rss_late_mb']:.0f} MB ({100 * r['growth']:+.1f} %)"
    )


MEASURE = {
    "a": bench_light.against_reference,
    "b": bench_http.previews,
    "c": bench_http.full_size,
    "d": bench_light.measure_growth,
    "e": bench_eager.run,
    "f": bench_http.crowd,
}
SHOW = {"a": show_a, "b": show_b, "c": show_c, "d": show_d, "e": show_e, "f": show_f}

if __name__ == "__main__":
    main()
