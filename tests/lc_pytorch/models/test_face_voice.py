"""The two towers: unit vectors that depend on nothing but their own input."""

import pytest
import torch
from small_training import IMAGE_SIZE_PX, make_model
from torch import Tensor

from facevox.errors import UserError
from lc_pytorch.models import FaceVoiceModel

pytestmark = pytest.mark.usefixtures("one_thread")


def make_inputs(num: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    faces = torch.randn(num, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX, generator=generator)
    return faces, torch.randn(num, 400, generator=generator)


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.numeric
def test_an_embedding_does_not_depend_on_its_batch(norm: str) -> None:
    model = make_model(norm=norm).eval()
    faces, voices = make_inputs()
    with torch.no_grad():
        together = model(faces, voices)
        loud = voices.clone()
        loud[1:] *= 100
        among_others = model(torch.cat([faces[:1], torch.ones_like(faces[1:])]), loud)
        for side, embed, inputs in ((0, model.embed_faces, faces), (1, model.embed_voices, voices)):
            alone = torch.cat([embed(row[None]) for row in inputs])
            torch.testing.assert_close(together[side], alone, rtol=0, atol=1e-5)
            torch.testing.assert_close(among_others[side][0], alone[0], rtol=0, atol=1e-5)
            turned = embed(inputs.flip(0)).flip(0)
            torch.testing.assert_close(turned, alone, rtol=0, atol=1e-5)
            assert (alone[0] - alone[1]).abs().max() > 1e-3  # and yet on their own input


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_embeddings_are_unit_float32_vectors(precision: torch.dtype) -> None:
    model = make_model().eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        for vectors in model(*make_inputs()):
            assert vectors.dtype == torch.float32
            assert vectors.shape == (5, 8)
            torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5), rtol=0, atol=1e-5)


def test_a_silent_voice_and_a_black_picture_give_finite_vectors_and_gradients() -> None:
    model = make_model(dropout=0.0)
    face, voice = model(torch.zeros(2, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX), torch.zeros(2, 400))
    (face.sum() + voice.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert face.isfinite().all()
    assert voice.isfinite().all()


def test_every_trained_weight_gets_a_gradient() -> None:
    """DDP waits for ever for one that gets none: no pooler, no masking, no layer drop."""
    model = make_model(learnable_temperature=True)
    assert not model.audio_encoder.config.apply_spec_augment  # type: ignore[union-attr]
    assert model.audio_encoder.config.layerdrop == 0  # type: ignore[union-attr]
    for _ in range(3):
        model.zero_grad()
        face, voice = model(*make_inputs())
        ((face @ voice.T) / model.temperature).square().sum().backward()
        without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
        assert without == set()
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.5, 1.0])
def test_the_temperature_is_what_was_asked_for(temperature: float) -> None:
    for is_learnable in (False, True):
        model = make_model(temperature=temperature, learnable_temperature=is_learnable)
        assert float(model.temperature.detach()) == pytest.approx(temperature, rel=1e-6)
        assert model.log_temperature.requires_grad == is_learnable


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures_and_sizes_are_refused(temperature: float) -> None:
    with pytest.raises(UserError, match="--temperature"):
        make_model(temperature=temperature)
    with pytest.raises(UserError, match="--embedding_dim is 0"):
        model = make_model()
        FaceVoiceModel(0, face_model=model.face_encoder, voice_model=model.audio_encoder)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_model_rebuilt_from_its_settings_computes_the_same(norm: str) -> None:
    import json

    model = make_model(norm=norm, learnable_temperature=True).eval()
    settings = json.loads(json.dumps(model.settings()))
    again = FaceVoiceModel.from_settings(settings).eval()
    again.load_state_dict(model.state_dict())
    for found, expected in zip(again(*make_inputs()), model(*make_inputs()), strict=True):
        assert torch.equal(found, expected)
    assert again.settings() == model.settings()


@pytest.mark.parametrize("logarithm", [-9.0, 3.0])
def test_a_temperature_learnt_to_its_bound_can_be_stored(logarithm: float) -> None:
    from lc_pytorch.losses import clamp_log_temperature_

    model = make_model(learnable_temperature=True)
    with torch.no_grad():
        model.log_temperature.fill_(logarithm)
    clamp_log_temperature_(model.log_temperature)
    again = FaceVoiceModel.from_settings(model.settings())
    assert float(again.temperature.detach()) == pytest.approx(0.01 if logarithm < 0 else 1.0)


def test_parts_are_the_whole_model_but_for_the_temperature() -> None:
    model = make_model()
    names = {f"{part}.{name}" for part, net in model.parts().items() for name in net.state_dict()}
    assert names == set(model.state_dict()) - {"log_temperature"}
    assert set(model.parts()) == {"face_encoder", "face_projection", "audio_encoder", "audio_projection"}
    assert model.image_size == IMAGE_SIZE_PX
