"""The HQ VoxCeleb model: shapes, sizes that must fit, pooling against loops, and its files."""

import pytest
import torch
from transformers import ViTModel

from facevox.errors import UserError
from facevox_demo.tiny_encoders import make_vit_config
from lc_pytorch.models.hq import MEL_POOLINGS, HQVoxCelebModel
from lc_pytorch.models.hq.model import MIN_VARIANCE, PooledMels
from lc_pytorch.models.store import load_model, save_config, save_weights

SIZE_PX = 16


def make_model(mel_pooling="flatten", **options):
    torch.manual_seed(0)
    face = ViTModel(make_vit_config(SIZE_PX), add_pooling_layer=False)
    settings = {"num_mels": 40, "num_frames": 50} | options
    return HQVoxCelebModel(32, face_model=face, mel_pooling=mel_pooling, **settings).eval()


@pytest.mark.parametrize("mel_pooling", MEL_POOLINGS)
def test_both_embeddings_are_unit_vectors_faces_first(mel_pooling):
    model = make_model(mel_pooling)
    mels, faces = torch.randn(3, 40, 50), torch.randn(3, 3, SIZE_PX, SIZE_PX)
    face, audio = model(mels, faces)
    assert face.shape == audio.shape == (3, 32)
    torch.testing.assert_close(face.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(audio.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(face, model.embed_faces(faces))
    torch.testing.assert_close(audio, model.embed_voices(mels))
    one_by_one = torch.cat([model.embed_voices(mel[None]) for mel in mels])
    torch.testing.assert_close(audio, one_by_one, atol=1e-5, rtol=1e-4)


def test_default_is_the_documents_flattened_network():
    model = make_model()
    mels = torch.randn(2, 40, 50)
    first, _, second = model.audio_projection
    assert (first.in_features, first.out_features, second.out_features) == (2000, 512, 32)
    hidden = torch.relu(mels.reshape(2, -1) @ first.weight.T + first.bias)
    expected = hidden @ second.weight.T + second.bias
    torch.testing.assert_close(model.embed_voices(mels), expected / expected.norm(dim=1, keepdim=True))
    assert "audio_encoder" not in model.parts()


@pytest.mark.parametrize("is_attentive", [False, True])
def test_pooling_is_the_weighted_mean_and_deviation_of_each_channel(is_attentive):
    torch.manual_seed(0)
    pooled = PooledMels(8, is_attentive=is_attentive)
    mel = torch.randn(1, 8, 13)
    frames = pooled.frames(mel)[0].detach().double()  # (C, T)
    weights = torch.full_like(frames, 1 / 13)
    if is_attentive:
        scores = pooled.attention(pooled.frames(mel))[0].detach().double()
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
    means, deviations = [], []
    for channel in range(len(frames)):
        mean = sum(float(w * x) for w, x in zip(weights[channel], frames[channel], strict=True))
        variance = sum(
            float(w * (x - mean) ** 2) for w, x in zip(weights[channel], frames[channel], strict=True)
        )
        means.append(mean)
        deviations.append(max(variance, MIN_VARIANCE) ** 0.5)
    torch.testing.assert_close(
        pooled(mel)[0].double(), torch.tensor(means + deviations).double(), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("mel_pooling", ["attentive", "statistics"])
def test_poolings_take_any_length_and_steady_input_trains(mel_pooling):
    model = make_model(mel_pooling)
    for frames in (1, 7, 400):
        assert model.embed_voices(torch.randn(2, 40, frames)).shape == (2, 32)
    model.embed_voices(torch.zeros(2, 40, 20)).sum().backward()
    gradients = [p.grad for p in model.audio_encoder.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_message_about_another_size_has_both():
    with pytest.raises(UserError, match=r"40 x 90 .*takes 40 x 50, because it flattens"):
        make_model().embed_voices(torch.randn(2, 40, 90))
    with pytest.raises(UserError, match=r"64 x 50 .*takes 40 x 50"):
        make_model().embed_voices(torch.randn(2, 64, 50))
    with pytest.raises(UserError, match=r"64 x 90 .*takes 40 x any length"):
        make_model("attentive").embed_voices(torch.randn(2, 64, 90))


def test_bad_settings_are_reported_at_once():
    with pytest.raises(UserError, match=r"'mean'.*flatten, attentive, statistics; 0 mel frames"):
        make_model("mean", num_frames=0)


@pytest.mark.parametrize("mel_pooling", MEL_POOLINGS)
def test_saved_model_comes_back_with_its_sizes(mel_pooling, tmp_path):
    model = make_model(mel_pooling, learnable_temperature=True)
    save_config(tmp_path, model, kind="hq_voxceleb", data={"num_mels": 40}, training={})
    for which in ("best", "last"):
        save_weights(tmp_path, model, which=which)
    assert (tmp_path / "audio_encoder.pth").exists() == (mel_pooling != "flatten")
    loaded = load_model(tmp_path)
    assert loaded.kind == "hq_voxceleb"
    assert loaded.model.mel_pooling == mel_pooling
    mels, faces = torch.randn(2, 40, 50), torch.randn(2, 3, SIZE_PX, SIZE_PX)
    for embedded, expected in zip(loaded.model(mels, faces), model(mels, faces), strict=True):
        torch.testing.assert_close(embedded, expected)


def test_every_parameter_gets_a_gradient():
    for mel_pooling in MEL_POOLINGS:
        model = make_model(mel_pooling).train()
        face, audio = model(torch.randn(4, 40, 50), torch.randn(4, 3, SIZE_PX, SIZE_PX))
        (face @ audio.T).square().sum().backward()
        without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []
