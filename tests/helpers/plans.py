"""The privacy plan that tests start from; `dataclasses.replace` makes others of it."""

from dpmedbench.privacy.plan import PrivacyPlan

PLAN = PrivacyPlan(
    unit="image",
    sampling="poisson",
    neighbouring="add_remove",
    num_records=60,
    batch_size=10,
    epochs=10,
    noise_multiplier=2.0,
    thresholds=(1.5,),
    delta=1e-3,
    accountant="rdp",
)
