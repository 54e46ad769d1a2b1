"""How well networks find what stands in front: IoU with polygons that were drawn by hand, on real photos.

    PYTHONPATH=.:tests:export python tests/bench/subjects.py PHOTOS u2net.onnx u2netp.onnx selfie_segmentation.tflite

PHOTOS is a folder with the photos of subjects.json by their names there, which also says where each is from. Bundled
graphs with the role `subject` are scored at several sizes, with the edge as the server refines it and without. Further
arguments are files of others: graphs of U²-Net as rembg hands them on, and the person mask of MediaPipe, which takes
`pip install ai-edge-litert`; the last is also joined to the bundled graph's. `--sheet out.png` shows what each found.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from server.model.engine import Graph, OnnxEngine, load_graph
from server.scene.subject import refined

ROOT = Path(__file__).resolve().parents[2]
SIZES = (224, 256, 288, 320, 384)  # of the bundled graph
IMAGENET = (np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225]))


def drawn(label):
    """The mask of a label, (H, W) bool."""
    mask = np.zeros(label["size"][::-1], np.uint8)
    for sign, points in label["shapes"]:
        cv2.fillPoly(mask, [np.array(points, np.int32)], int(sign == "+"))
    return mask > 0


def plain(found, rgb):
    """An answer (h, w) uint8 at the size of the photo, interpolated."""
    return cv2.resize(found, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def bundled(graph, size, mirror=False):
    """A function of a photo: the answer of a graph of onnx_models/, (h, w) uint8."""
    spec = graph.manifest.input.model_copy(update={"size": size, "mirror": mirror})
    graph = Graph(graph.manifest.model_copy(update={"input": spec}), graph.session, graph.provider)
    engine = OnnxEngine({"subject": graph})
    return lambda rgb: np.rint(engine._run(graph, ["subject"], rgb)["subject"] * 255).astype(np.uint8)


def published(path):
    """A function of a photo: the answer of a U²-Net at 320 x 320."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = session.get_inputs()[0].name, session.get_outputs()[0].name

    def answer(rgb):
        small = cv2.resize(rgb, (320, 320), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        x = ((small - IMAGENET[0]) / IMAGENET[1]).transpose(2, 0, 1)[None]
        return np.rint(session.run([names[1]], {names[0]: x})[0][0, 0] * 255).astype(np.uint8)

    return answer


def person(path):
    """A function of a photo: where MediaPipe sees a person, 256 x 256."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    before, after = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def answer(rgb):
        small = cv2.resize(rgb, (256, 256), interpolation=cv2.INTER_AREA).astype(np.float32)[None] / 255
        interpreter.set_tensor(before, small)
        interpreter.invoke()
        return np.rint(interpreter.get_tensor(after)[0, ..., 0] * 255).astype(np.uint8)

    return answer


def candidates(models, files):
    """(name, function of a photo, function that brings its answer to the photo's size)."""
    graph = load_graph(models, "u2netp", provider="cpu", threads=2)
    own = graph.manifest.input.size
    found = [(f"bundled {size}", bundled(graph, size), refined) for size in SIZES]
    found += [(f"bundled {own}, mirrored", bundled(graph, own, True), refined)]
    found += [(f"bundled {own}, edge not refined", bundled(graph, own), plain)]
    for path in files:
        answer = person(path) if path.suffix == ".tflite" else published(path)
        found += [(path.name, answer, refined), (f"{path.name}, edge not refined", answer, plain)]
        if path.suffix == ".tflite":

            def joined(rgb, answer=answer, general=bundled(graph, own)):
                first = general(rgb)
                return np.maximum(first, plain(answer(rgb), first))

            found.append((f"bundled {own} or {path.name}", joined, refined))
    return found


def main():
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("photos", type=Path)
    p.add_argument("files", type=Path, nargs="*", help="graphs of others")
    p.add_argument("--models", type=Path, default=ROOT / "onnx_models")
    p.add_argument("--sheet", type=Path)
    p.add_argument("--each", action="store_true", help="also every photo's IoU")
    args = p.parse_args()
    labels = json.loads(Path(__file__).with_suffix(".json").read_text())
    photos = {}
    for name in labels:
        path = next(args.photos.glob(f"{name}.*"), None)
        if path is None:
            print(f"{name} is not there: {labels[name]['source']}")
        else:
            photos[name] = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    kinds = list(dict.fromkeys(labels[n]["kind"] for n in photos))
    print(f"IoU at one half, in percent, of {len(photos)} photos\n")
    print("| candidate | all | " + " | ".join(kinds) + " | worst | mean error |")
    print("|---|" + "---|" * (len(kinds) + 3))
    rows = []
    for title, answer, refine in candidates(args.models, args.files):
        ious, errors, masks = {}, [], {}
        for name, rgb in photos.items():
            mask, truth = refine(answer(rgb), rgb), drawn(labels[name])
            union = ((mask > 127) | truth).sum()
            ious[name] = 100 * float(((mask > 127) & truth).sum() / max(1, union))
            errors.append(100 * float(np.abs(mask / 255 - truth).mean()))
            masks[name] = mask
        means = [np.mean([v for n, v in ious.items() if labels[n]["kind"] == kind]) for kind in kinds]
        worst = min(ious, key=ious.get)
        cells = [f"{np.mean(list(ious.values())):.1f}", *(f"{m:.1f}" for m in means), f"{ious[worst]:.0f} {worst}"]
        print(f"| {title} | " + " | ".join(cells) + f" | {np.mean(errors):.1f} |", flush=True)
        if args.each:
            print("  " + ", ".join(f"{n} {v:.0f}" for n, v in ious.items()))
        rows.append((title, masks))
    if args.sheet:
        cv2.imwrite(str(args.sheet), sheet(photos, labels, rows)[..., ::-1])


def sheet(photos, labels, rows, side=190):
    """One column a candidate, one row a photo: the photo where the mask is, on green; first the drawn ones."""
    columns = [("drawn", {n: np.uint8(255) * drawn(labels[n]) for n in photos}), *rows]

    def tile(rgb, mask):
        share = (mask / 255.0)[..., None]
        shown = (rgb * share + np.array([30, 200, 60]) * (1 - share)).astype(np.uint8)
        scale = side / max(rgb.shape[:2])
        shown = cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        out = np.zeros((side, side, 3), np.uint8)
        out[: shown.shape[0], : shown.shape[1]] = shown
        return out

    lines = []
    for name, rgb in photos.items():
        lines.append(np.hstack([tile(rgb, np.full(rgb.shape[:2], 255)), *(tile(rgb, m[name]) for _, m in columns)]))
    head = np.zeros((18, lines[0].shape[1], 3), np.uint8)
    for k, (title, _) in enumerate(columns):
        cv2.putText(head, title[:30], ((k + 1) * side + 3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1)
    return np.vstack([head, *lines])


if __name__ == "__main__":
    main()
