"""What a classifier or a detector ends with."""

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

import mil
from palettizer.runtime import Session
from test_runtime_shape import values


@pytest.mark.parametrize("classes", [["cat", "dog", "ox"], [7, 5, -3]])
def test_classify(classes):
    program = mb.program(input_specs=[mb.TensorSpec((1, 3), dtype=types.fp32)], opset_version=ct.target.iOS16)(
        lambda x: mb.mul(x=x, y=1.0, name="probabilities"))
    model = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS16, skip_model_load=True,
                       compute_precision=ct.precision.FLOAT32, classifier_config=ct.ClassifierConfig(classes))
    for x, best in [([0.25, 0.5, 0.25], 1), ([0.5, 0.25, 0.5], 0), ([np.nan, 0.25, 0.5], 2)]:
        found = Session(model).predict({"x": np.array([x], np.float32)})
        assert found.pop("classLabel") == classes[best]
        (probabilities,) = found.values()
        np.testing.assert_array_equal(list(probabilities.values()), np.array(x, np.float32))
        assert list(probabilities) == classes


def overlap(one, other):
    """Intersection over union of two boxes by centre and size."""
    both = np.prod([max(0, min(one[i] + one[i + 2] / 2, other[i] + other[i + 2] / 2)
                        - max(one[i] - one[i + 2] / 2, other[i] - other[i + 2] / 2)) for i in (0, 1)])
    return both / (one[2] * one[3] + other[2] * other[3] - both) if both > 0 else 0


def chosen(boxes, scores, iou, least, most, per_class):
    best, classes = scores.max(1), scores.argmax(1)
    kept = []
    for at in np.argsort(-best, kind="stable"):
        rivals = [other for other in kept if not per_class or classes[other] == classes[at]]
        if best[at] >= least and len(kept) < most and all(overlap(boxes[at], boxes[other]) <= iou for other in rivals):
            kept.append(at)
    return kept or [int(best.argmax())]


def suppressed(boxes, scores, iou, least, most, per_class, transposed):
    """All outputs; `boxes` and `scores` are tensors, so that gradients flow."""
    if transposed:
        boxes, scores = boxes.mT, scores.mT
    out = [[], [], [], []]
    for box, score in zip(boxes, scores):
        kept = chosen(box.detach().numpy(), score.detach().numpy(), iou, least, most, per_class)
        empty = most - len(kept)
        out[0].append(torch.cat([box[kept], torch.zeros(empty, 4)]))
        out[1].append(torch.cat([score[kept], torch.zeros(empty, score.shape[1])]))
        out[2].append(torch.tensor([*kept, *[-1] * empty], dtype=torch.int32))
        out[3].append(torch.tensor(len(kept), dtype=torch.int32))
    out = [torch.stack(parts) for parts in out]
    return (out[0].mT, out[1].mT, out[2]) if transposed else out


def suppression(target, count, most, classes, iou, least, per_class, batches=2):
    rng = np.random.default_rng([count, most, classes])
    boxes = np.concatenate([rng.uniform(0, 20, (batches, count, 2)), rng.uniform(2, 9, (batches, count, 2))], 2).astype(np.float32)
    scores = rng.uniform(-1, 1, (batches, count, classes)).astype(np.float32)
    transposed = target == "iOS17"
    if transposed:
        boxes, scores = (np.ascontiguousarray(array.swapaxes(1, 2)) for array in (boxes, scores))
    given = {} if transposed else {"score_threshold": np.float32(least)}
    return (lambda boxes, scores: mb.non_maximum_suppression(
        boxes=boxes, scores=scores, iou_threshold=np.float32(iou), max_boxes=most, per_class_suppression=per_class, **given),
        {"boxes": boxes, "scores": scores},
        lambda boxes, scores: suppressed(boxes, scores, iou, -np.inf if transposed else least, most, per_class, transposed))


@pytest.mark.parametrize("target", ["iOS15", "iOS17"])
def test_suppression(target):
    cases = [suppression(target, count, most, classes, iou, least, per_class)
             for count, most in [(10, 7), (30, 37), (60, 20)] for classes in (1, 4) for per_class in (True, False)
             for iou, least in [(0.05, -2), (0.3, 0.2), (0.6, 2)]]
    mil.check_cases(cases, target, differentiable=True)


def test_suppression_of_special_boxes():
    # equal scores, boxes without an area, a score that is no number, a score at the threshold
    boxes = np.array([[[1, 1, 2, 2], [1, 1, 2, 2], [1, 1, 0, 0], [5, 5, 1, 1], [9, 9, 1, 1]]], np.float32)
    scores = np.array([[[0.5], [0.5], [0.5], [np.nan], [0.25]]], np.float32)
    found = mil.run(lambda boxes, scores: mb.non_maximum_suppression(
        boxes=boxes, scores=scores, iou_threshold=np.float32(0.5), score_threshold=np.float32(0.25), max_boxes=5),
        {"boxes": boxes, "scores": scores}, "iOS15")
    np.testing.assert_array_equal(found[2], [[0, 2, 4, -1, -1]])
    np.testing.assert_array_equal(found[3], [3])


def test_scores_of_other_boxes():
    with pytest.raises(ValueError, match="boxes has the shape"):
        session_of = {"boxes": values((1, 3, 4)), "scores": values((1, 2, 1))}
        mil.run(lambda boxes, scores: mb.non_maximum_suppression(
            boxes=boxes, scores=scores, iou_threshold=np.float32(0.5), score_threshold=np.float32(0), max_boxes=2),
            session_of, "iOS15")
