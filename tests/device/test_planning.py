from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgetl import finetune, plan
from edgetl.artifacts import Artifacts, GraphMemory, ShareSize, load_artifacts
from edgetl.cli.main import main
from edgetl.device.planning import RESERVE, memory_of, plan_for, predict
from edgetl.device.profile import Device, load_device
from edgetl.engines.registry import resolve_engine
from edgetl.errors import DeviceError, EdgetlError
from edgetl.events import Note
from edgetl.runs.run import Run

PI = load_device("raspberry-pi-4")
FROZEN = GraphMemory(10, 2)


def sized(artifacts: Path, step: GraphMemory, frozen: GraphMemory = FROZEN) -> Artifacts:
    """The digits' prepared directory, as if its graphs were larger."""
    prepared = load_artifacts(artifacts)
    return replace(prepared, manifest=replace(prepared.manifest, step_memory=step, backbone_memory=frozen))


def small(memory_mb: float, **fields: object) -> Device:
    return replace(PI, training_memory_mb=memory_mb, **fields)  # type: ignore[arg-type]


def test_memory_grows_with_all_that_it_should() -> None:
    step, frozen = GraphMemory(20, 4), GraphMemory(10, 2)
    base = memory_of("portable", step, frozen, 3.0, 2, 8)
    assert memory_of("portable", step, frozen, 3.0, 2, 16).training_mb > base.training_mb
    assert memory_of("portable", step, frozen, 4.0, 2, 8).training_mb > base.training_mb
    assert memory_of("portable", step, frozen, 3.0, 4, 8).features_mb > base.features_mb
    assert memory_of("portable", replace(step, nodes=5000), frozen, 3.0, 2, 8).training_mb > base.training_mb
    assert memory_of("portable", step, None, 3.0, 2, 8).features_mb < base.features_mb
    assert base.peak_mb == max(base.features_mb, base.training_mb)


def test_the_largest_micro_batch_is_the_largest_that_fits(digits_artifacts: Path) -> None:
    prepared = sized(digits_artifacts, GraphMemory(20, 10))
    found = plan_for(prepared, small(600), name="pi", batch_size=64)
    assert found.fits
    assert RESERVE * predict(prepared.manifest, "portable", 4, found.largest_micro_batch).peak_mb <= 600
    assert RESERVE * predict(prepared.manifest, "portable", 4, 2 * found.largest_micro_batch).peak_mb > 600
    assert found.micro_batch == min(64, found.largest_micro_batch)
    assert found.memory is not None
    assert found.memory.training_mb == predict(prepared.manifest, "portable", 4, found.micro_batch).training_mb


def test_threads_are_given_up_before_the_job_is(digits_artifacts: Path) -> None:
    prepared = sized(digits_artifacts, GraphMemory(5, 0.1), GraphMemory(10, 40))
    one, four = (predict(prepared.manifest, "portable", n, 1).features_mb for n in (1, 4))
    found = plan_for(prepared, small(RESERVE * (one + four) / 2), name="pi")
    assert found.fits
    assert found.threads in (2, 3)
    too_small = plan_for(prepared, small(RESERVE * one - 1), name="pi")
    assert not too_small.fits
    assert "computing features takes" in too_small.problems[0]


def test_what_does_not_fit_says_what_would(digits_artifacts: Path) -> None:
    prepared = sized(digits_artifacts, GraphMemory(5, 1000, nodes=1000))
    shares = (ShareSize("head", 0.1, 1, 10), ShareSize("last:1", 1, 20, 50), ShareSize("last:2", 2, 50, 100))
    whole = ShareSize("all", 5, 100, 1000)
    prepared = replace(prepared, manifest=replace(prepared.manifest, shares=(*shares, whole)))
    found = plan_for(prepared, small(600), name="pi")
    assert (found.fits, found.largest_micro_batch) == (False, 0)
    assert "training takes" in found.problems[0]
    assert "no smaller share would fit" in found.problems[0]
    # of 1000 MB for a sample, a forward pass of last:1 makes a fifth, that of last:2 half: 600 and 750 are expected
    advice = "prepare again with --train {}, which would fit, or with --train auto --device pi"
    assert advice.format("last:1") in plan_for(prepared, small(1200), name="pi").problems[0]
    assert advice.format("last:2") in plan_for(prepared, small(1500), name="pi").problems[0]


def test_the_disk_of_features(digits_artifacts: Path) -> None:
    prepared = load_artifacts(digits_artifacts)
    whole = plan_for(sized(digits_artifacts, GraphMemory(5, 0.1)), PI, name="pi", images=1_000_000)
    half = plan_for(
        sized(digits_artifacts, GraphMemory(5, 0.1)), PI, name="pi", images=1_000_000, cache_precision="float16"
    )
    nbytes = sum(spec.nbytes for spec in prepared.manifest.features)
    assert whole.cache_mb == nbytes + 24
    assert half.cache_mb == nbytes / 2 + 24
    full = plan_for(
        sized(digits_artifacts, GraphMemory(5, 0.1)), replace(PI, storage_mb=100), name="pi", images=1_000_000
    )
    assert "of disk are needed" in full.problems[0]


def test_engines_that_a_device_does_not_have(digits_artifacts: Path) -> None:
    prepared = load_artifacts(digits_artifacts)
    phone = load_device("arm64-phone")
    assert "train elsewhere and deploy for it" in plan_for(prepared, phone, name="arm64-phone").problems[0]
    other = plan_for(prepared, PI, name="pi", engine="ort-training")
    assert other.problems[0] == "ort-training does not run on pi, only portable"
    only = replace(prepared, manifest=replace(prepared.manifest, engines=("ort-training",)))
    assert "trains with ort-training, and pi has portable" in plan_for(only, PI, name="pi").problems[0]


def test_the_command(digits_artifacts: Path) -> None:
    good = CliRunner().invoke(main, ["plan", str(digits_artifacts), "--device", "raspberry-pi-4", "--images", "1000"])
    assert good.exit_code == 0, good.output
    assert "fits Raspberry Pi 4 Model B, 4 GB: portable, 4 threads, batches of 16" in good.stdout
    assert "features of 1,000 samples" in good.stdout
    bad = CliRunner().invoke(main, ["plan", str(digits_artifacts), "--memory", "50"])
    assert bad.exit_code == 1
    assert "does not fit" in bad.stdout


@pytest.mark.parametrize(
    "options", [{"images": 0}, {"batch_size": -1}, {"memory_mb": 0.5}, {"cache_precision": "int8"}]
)
def test_options_that_are_refused(digits_artifacts: Path, options: dict[str, object]) -> None:
    with pytest.raises(EdgetlError):
        plan(digits_artifacts, **options)  # type: ignore[arg-type]


def test_finetune_takes_what_a_device_has(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    finetune(
        digits_artifacts,
        digits / "train",
        out=tmp_path / "run",
        epochs=1,
        device="raspberry-pi-zero-2-w",
        on_event=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    args = Run(tmp_path / "run").read_args()
    assert (args.engine, args.batch_size, args.cache_precision) == ("portable", 8, "float16")
    assert args.device == "raspberry-pi-zero-2-w"
    # what is given goes before what the device has
    finetune(
        digits_artifacts,
        digits / "train",
        out=tmp_path / "other",
        epochs=1,
        device="raspberry-pi-zero-2-w",
        batch_size=5,
        cache_precision="float32",
        engine=resolve_engine("auto"),
    )
    args = Run(tmp_path / "other").read_args()
    assert (args.engine, args.batch_size, args.cache_precision) == (resolve_engine("auto"), 5, "float32")


def test_finetune_refuses_what_does_not_fit_before_it_begins(
    digits: Path, digits_artifacts: Path, tmp_path: Path
) -> None:
    for options, message in (
        ({"memory_mb": 20}, "even for one sample at once"),
        ({"device": "arm64-phone"}, "train elsewhere"),
        (
            {"device": "raspberry-pi-zero-2-w", "micro_batch": 100_000},
            r"--micro-batch 100000 takes more than the 200 MB",
        ),
    ):
        with pytest.raises(DeviceError, match=message):
            finetune(digits_artifacts, digits / "train", out=tmp_path / "run", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_run_with_a_device_can_be_resumed(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    for epochs, resume in ((1, False), (2, True)):
        finetune(
            digits_artifacts,
            digits / "train",
            out=tmp_path / "run",
            epochs=epochs,
            resume=resume,
            device="raspberry-pi-zero-2-w",
        )
    assert len(Run(tmp_path / "run").read_results()) == 3


def test_photographs_are_counted(digits_artifacts: Path) -> None:
    prepared = sized(digits_artifacts, GraphMemory(5, 0.1))
    plain = plan_for(prepared, small(600), name="pi")
    assert plain.memory is not None
    with_pictures = plan_for(prepared, small(600), name="pi", decoding_mb=20)
    assert with_pictures.memory is not None
    assert with_pictures.memory.features_mb == plain.memory.features_mb + 4 * 20
    assert with_pictures.decoding_mb == plain.decoding_mb  # what is left does not depend on what is wanted
    assert plain.decoding_mb == pytest.approx(600 / RESERVE - plain.memory.features_mb)
    fewer = plan_for(prepared, small(600), name="pi", decoding_mb=200)
    assert (fewer.fits, fewer.threads) == (True, 1)
    refused = plan_for(prepared, small(600), name="pi", decoding_mb=700)
    assert "700 of them to decode a picture" in refused.problems[0]
    assert "make the pictures smaller" in refused.problems[0]


def test_the_size_of_photographs(digits_artifacts: Path) -> None:
    def features_mb(**options: object) -> float:
        found = plan(digits_artifacts, memory_mb=4000, **options)  # type: ignore[arg-type]
        assert found.memory is not None
        return found.memory.features_mb / found.threads

    scaled, full = (features_mb(pictures=(4032, 3024), decode=decode) for decode in ("scaled", "full"))
    assert full - scaled == pytest.approx(21 * 4.032 * 3.024 * (1 - 1 / 64), rel=1e-3)  # grey
    good = CliRunner().invoke(main, ["plan", str(digits_artifacts), "--memory", "2000", "--pictures", "4032x3024"])
    assert good.exit_code == 0, good.output
    assert "photographs of 4032×3024 pixels" in good.stdout
    for wrong in ("4032", "4032x", "ax3", "0x5"):
        bad = CliRunner().invoke(main, ["plan", str(digits_artifacts), "--pictures", wrong])
        assert bad.exit_code == 2
        assert "is not a width and a height such as 4032x3024" in bad.output
    with pytest.raises(EdgetlError, match="pictures must lie between"):
        plan(digits_artifacts, pictures=(40_000, 30_000))


def test_the_scores_of_many_classes_are_counted(digits_artifacts: Path) -> None:
    prepared = sized(digits_artifacts, GraphMemory(5, 0.1))
    many = replace(prepared, manifest=replace(prepared.manifest, outputs=10_000))
    few, all_of_them = (plan_for(many, small(600), name="pi", validated=n).memory for n in (0, 1000))
    assert few is not None
    assert all_of_them is not None
    assert all_of_them.training_mb - few.training_mb == pytest.approx(50)
    refused = plan_for(many, small(600), name="pi", validated=16_000).problems[0]
    assert "800 of them are the scores of all validation samples for 10,000 outputs: let fewer" in refused
