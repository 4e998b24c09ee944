"""A search in which both a stage and numbers are open."""

SEARCH_SPACE = """\
question: Which settings?
seeds: [5, 6, 7]
search: {trials: 16, seed: 1, repeat_best: 2}
trial:
  dataset: {name: tip3p_water}
  model: {name: egnn}
  pretrain:
    choice:
      -
      - task: {name: masking, masking_ratio: {uniform: [0.1, 1.0]}}
        epochs: 2
        batch_size: 2
  finetune:
    task: {name: energy_forces}
    epochs: 9
    batch_size: 2
    lr: {loguniform: [1e-5, 1e-2]}
profiles: {quick: }
"""
