# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # From two checkpoints to a verdict
#
# One of these two models has a backdoor. The script shows which, why, and what its
# trigger looks like. It runs as it stands (`python docs/two_checkpoints.py [FOLDER]`),
# cell by cell in an editor that knows `# %%`, or as a notebook (`jupytext --to ipynb
# docs/two_checkpoints.py`). Pictures go to FOLDER, by default the present one.

# %%
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw

import ban_jax
from ban_jax.zoo import ground_truth, pictures, success

given = [word for word in sys.argv[1:] if not word.startswith("-")]
folder = pathlib.Path(given[0] if given else ".")
zoo = pathlib.Path(ban_jax.zoo.BUNDLED)
names = ("preact_resnet18_w4_clean_s0", "preact_resnet18_w4_badnets_t0_s0")

# %% [markdown]
# Clean images that the models were not trained on: here the test split of scikit-
# learn's digits, [N, 8, 8, 1] with pixels of 0 to 1.

# %%
clean = ban_jax.data.load("digits", num=512)
print(clean.images.shape, clean.labels.shape)

# %% [markdown]
# A checkpoint is read as data. Its architecture, width and classes are recognised from
# the names and shapes of its tensors.

# %%
read = {
    name: ban_jax.checkpoints.read(str(zoo / f"{name}.safetensors")) for name in names
}
for name, candidate in read.items():
    print(name, candidate.spec)

# %% [markdown]
# A record per model. `vectors` hold what each witness measured of each class, the verdict
# compares them with clean models of the data set (the profile that ships with the
# package). `ban_jax.scan` does the same for many files at once.

# %%
found = {
    name: ban_jax.judge(
        candidate.spec.create(),
        candidate.full_variables(),
        clean.images,
        clean.labels,
        dataset="digits",
    )
    for name, candidate in read.items()
}
for name, record in found.items():
    target = f", target {record['target']}" * (record["verdict"] == "backdoored")
    print(f"{name}: {record['verdict']}{target}: {record['reason']}")

# %% [markdown]
# A picture of what untargeted neuron noise does: how much it pulls other classes'
# images into each class, both models on one scale. The target of a model judged
# backdoored is red. One class stands out in the clean model too, by less; the verdict
# asks whether several witnesses accuse the same one.


# %%
def bars(values: np.ndarray, target: int | None, highest: float) -> Image.Image:
    """Bars of the classes up to `highest`; `values` of shape [K], the target's red."""
    picture = Image.new("RGB", (40 * len(values) + 20, 180), "white")
    draw = ImageDraw.Draw(picture)
    heights = 120 * np.maximum(values, 0) / highest
    for index, height in enumerate(heights):
        left = 20 + 40 * index
        colour = "#b02418" if index == target else "#8a94a6"
        draw.rectangle((left, 150 - height, left + 24, 151), fill=colour)
        draw.text((left + 9, 158), str(index), fill="black")
    return picture


pulls = {name: np.asarray(one["vectors"]["untargeted"]) for name, one in found.items()}
highest = max(pull.max() for pull in pulls.values())
for name, record in found.items():
    accused = record["target"] if record["verdict"] == "backdoored" else None
    bars(pulls[name], accused, highest).save(folder / f"{name}_noise.png")

# %% [markdown]
# The zoo is labelled, so the verdict can be checked: the trigger is kept beside the
# model. A picture shows images with and without it, captioned with the model's answers.

# %%
candidate = read[names[1]]
truth = ground_truth.find(candidate.path, clean.images.shape[1:], 10)
network = ban_jax.models.network(candidate.spec.create())
some = clean.images[:4]
triggered = success.show(truth.state, some, kernel=truth.kernel)
answers = [
    [
        str(answer)
        for answer in success.predict(
            candidate.full_variables(), images, network=network
        )
    ]
    for images in (some, triggered)
]
title = f"{truth.kind}, target {truth.spec.target}"
pictures.contact_sheet(some, np.asarray(triggered), title=title, answers=answers).save(
    folder / f"{names[1]}_trigger.png"
)
print(f"without the trigger: {answers[0]}, with it: {answers[1]}")
