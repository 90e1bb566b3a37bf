"""LP++, a linear probe that starts from the text: class k weighs w_k + alpha_k · t_k, t_k its zero-shot weights.

Huang et al., LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP, CVPR 2024. Every constant below is that of the
published code (FereshteShakeri/FewShot-CLIP-Strong-Baseline, methods/linear_probe_p2.py), where step sizes follow from
the data as bounds on curvature, so that nothing is searched for. docs/evaluate.md says in what this differs from it.
"""

import torch
from torch.nn import functional

from evaluate.probes.linear import Linear
from evaluate.probes.search import quality

STEPS = 300
MOMENTUM = 0.9
EVERY = 10  # steps on w for one on alpha
BLEND = 250.0  # alpha at the start, over the mean similarity of pictures and texts of one class
VALIDATION = 4  # pictures of a class that choose the step to stop at, or the shots where these are fewer


def fit(
    features: torch.Tensor,
    labels: torch.Tensor,
    text: torch.Tensor,
    validation: tuple[torch.Tensor, torch.Tensor],
) -> Linear:
    """The classifier of the step with the best accuracy on the validation part, the last of several.

    Args:
        features: of the shots, unit vectors, float32 [n, d].
        labels: int64 [n].
        text: zero-shot weights, float32 [d, classes].
        validation: features and labels of the validation part.
    """
    count, classes = len(labels), text.shape[1]
    truth = functional.one_hot(labels, classes).to(features)
    similarities = features @ text
    weights, biases = features.T @ truth, torch.zeros(classes, device=features.device)
    own = (truth * similarities).sum(dim=0)[truth.any(dim=0)] / truth.sum(dim=0)[truth.any(dim=0)]
    alphas = torch.full((classes,), BLEND, device=features.device) * own.mean()
    step = 4 * count / torch.linalg.eigvalsh(features.T @ features)[-1]
    alpha_step = count / (4 * similarities.square().sum(dim=0).max())
    speed, bias_speed = torch.zeros_like(weights), torch.zeros_like(biases)
    best, found = -1.0, Linear(weights, biases)
    for number in range(1, STEPS + 1):
        errors = (functional.softmax(features @ weights + biases + alphas * similarities, dim=1) - truth) / count
        speed = MOMENTUM * speed + features.T @ errors
        bias_speed = MOMENTUM * bias_speed + errors.sum(dim=0)
        weights, biases = weights - step * speed, biases - step * bias_speed
        if number % EVERY == 0:
            alphas = alphas - alpha_step * (errors * similarities).sum(dim=0)
        now = Linear(weights + alphas * text, biases)
        right, _ = quality(now.logits(validation[0]), validation[1])
        if right >= best:
            best, found = right, now
    return Linear(found.weights.cpu().double(), found.biases.cpu().double())
