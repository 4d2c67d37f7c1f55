"""StyleGAN2's parts, discriminators and super-resolution: options, equivalent computations, refusals."""

import math

import pytest
import torch
import torch.nn.functional as F

from torch_utils.ops import upfirdn2d
from training import layers, superresolution
from training import networks_stylegan2 as nets
from training.dual_discriminator import DualDiscriminator, MaskDualDiscriminator, MaskDualDiscriminatorV2, filtered_resizing

TINY = dict(channel_base=256, channel_max=8, num_fp16_res=0)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def head_pictures(batch=4, size=32, raw=16):
    return dict(
        image=torch.randn([batch, 3, size, size]),
        image_raw=torch.randn([batch, 3, raw, raw]),
        image_mask=torch.rand([batch, 1, raw, raw]),
    )


# Modulated convolution


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_fused_and_unfused_modulation_agree(kernel, demodulate, up):
    x, weight, styles = torch.randn([3, 4, 8, 8]), torch.randn([6, 4, kernel, kernel]), torch.randn([3, 4])
    options = dict(
        noise=torch.randn([3, 1, 8 * up, 8 * up]),
        up=up,
        padding=kernel // 2,
        resample_filter=upfirdn2d.setup_filter(layers.LOWPASS),
        demodulate=demodulate,
        flip_weight=up == 1,
    )
    fused, unfused = (nets.modulated_conv2d(x, weight, styles, fused_modconv=fused, **options) for fused in (True, False))
    assert fused.shape == (3, 6, 8 * up, 8 * up)
    torch.testing.assert_close(fused, unfused, atol=1e-5, rtol=1e-5)


def test_modulated_convolution_is_the_convolution_with_scaled_weights():
    x, weight, styles = torch.randn([2, 4, 8, 8]), torch.randn([6, 4, 3, 3]), torch.randn([2, 4])
    result = nets.modulated_conv2d(x, weight, styles, padding=1)
    for n in range(2):
        scaled = weight * styles[n][:, None, None]
        scaled = scaled / scaled.flatten(1).norm(dim=1)[:, None, None, None]
        torch.testing.assert_close(result[n : n + 1], F.conv2d(x[n : n + 1], scaled, padding=1), atol=1e-5, rtol=1e-5)


def test_half_precision_is_scaled_so_that_nothing_overflows():
    x = torch.randn([2, 64, 8, 8]).half()
    weight, styles = 300 * torch.randn([8, 64, 3, 3]), 300 * torch.randn([2, 64])
    result = nets.modulated_conv2d(x, weight, styles, padding=1)
    expected = nets.modulated_conv2d(x.float(), weight, styles, padding=1)
    assert result.dtype == torch.float16 and result.isfinite().all()
    assert (result.float() - expected).norm() / expected.norm() < 5e-3


# Layers


def test_fully_connected_layer_scales_its_weights():
    layer = nets.FullyConnectedLayer(6, 5, activation="lrelu", lr_multiplier=0.1, bias_init=2)
    assert layer.weight.std().item() == pytest.approx(10, rel=0.5)
    x = torch.randn([3, 6])
    expected = F.leaky_relu(x @ (layer.weight * 0.1 / math.sqrt(6)).T + 0.2, 0.2) * math.sqrt(2)
    torch.testing.assert_close(layer(x), expected)
    linear = nets.FullyConnectedLayer(6, 5, bias=False)
    assert linear.bias is None
    torch.testing.assert_close(linear(x), x @ linear.weight.T / math.sqrt(6))


def test_conv_layer_clamps_in_proportion_to_the_gain():
    layer = nets.Conv2dLayer(3, 4, kernel_size=3, conv_clamp=0.1)
    x = 100 * torch.randn([1, 3, 8, 8])
    assert layer(x).abs().max().item() == pytest.approx(0.1)
    assert layer(x, gain=0.5).abs().max().item() == pytest.approx(0.05)


@pytest.mark.parametrize("noise_mode", ["random", "const", "none"])
def test_noise_modes(noise_mode):
    layer = nets.SynthesisLayer(4, 4, w_dim=8, resolution=8)
    layer.noise_strength.data.fill_(0.5)
    x, w = torch.randn([2, 4, 8, 8]), torch.randn([2, 8])
    state = torch.get_rng_state()
    first, second = layer(x, w, noise_mode=noise_mode), layer(x, w, noise_mode=noise_mode)
    assert torch.equal(torch.get_rng_state(), state) == (noise_mode != "random")
    assert torch.equal(first, second) == (noise_mode != "random")
    without = layer(x, w, noise_mode="none")
    assert torch.equal(first, without) == (noise_mode == "none")


def test_unknown_noise_mode_is_refused():
    layer = nets.SynthesisLayer(4, 4, w_dim=8, resolution=8)
    with pytest.raises(ValueError, match="loud"):
        layer(torch.randn([2, 4, 8, 8]), torch.randn([2, 8]), noise_mode="loud")


# Mapping


def mapping(**kwargs):
    return nets.MappingNetwork(z_dim=8, c_dim=25, w_dim=6, **{**dict(num_ws=5, num_layers=2), **kwargs})


def test_mapping_repeats_one_w():
    ws = mapping()(torch.randn([3, 8]), torch.randn([3, 25]))
    assert ws.shape == (3, 5, 6)
    assert torch.equal(ws, ws[:, :1].expand_as(ws))
    assert mapping(num_ws=None)(torch.randn([3, 8]), torch.randn([3, 25])).shape == (3, 6)


def test_mapping_does_not_depend_on_the_length_of_z():
    network = mapping()
    z, c = torch.randn([3, 8]), torch.randn([3, 25])
    torch.testing.assert_close(network(z, c), network(7 * z, c))
    assert not torch.allclose(network(z, c), network(-z, c))
    assert not torch.allclose(network(z, c), network(z, -c))


def test_truncation_reaches_as_many_rows_as_the_cutoff_says():
    network = mapping()
    network.w_avg.normal_()
    z, c = torch.randn([3, 8]), torch.randn([3, 25])
    plain = network(z, c)
    truncated = network(z, c, truncation_psi=0.3, truncation_cutoff=2)
    assert torch.equal(truncated[:, 2:], plain[:, 2:])
    torch.testing.assert_close(truncated[:, :2], network.w_avg + 0.3 * (plain[:, :2] - network.w_avg))
    everywhere = network(z, c, truncation_psi=0)
    torch.testing.assert_close(everywhere, network.w_avg.expand_as(everywhere))
    beyond = network(z, c, truncation_psi=0, truncation_cutoff=14)  # the scripts' default, above num_ws
    assert torch.equal(beyond, everywhere)


def test_mean_w_is_tracked_only_when_asked():
    network = mapping(w_avg_beta=0.75)
    network.w_avg.fill_(1)
    z, c = torch.randn([3, 8]), torch.randn([3, 25])
    ws = network(z, c)
    assert torch.equal(network.w_avg, torch.ones(6))
    network(z, c, update_emas=True)
    torch.testing.assert_close(network.w_avg, 0.75 + 0.25 * ws[:, 0].mean(dim=0).detach())
    assert not network.w_avg.requires_grad


def test_track_moves_by_one_minus_beta():
    network = mapping(w_avg_beta=0.9)
    network.track(torch.full([6], 10.0))
    torch.testing.assert_close(network.w_avg, torch.ones(6))
    untracked = mapping(w_avg_beta=None)
    untracked.track(torch.ones(6))
    assert not list(untracked.buffers())


def test_mapping_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\[3, 7\]"):
        mapping()(torch.randn([3, 7]), torch.randn([3, 25]))


# Synthesis and discriminator blocks


@pytest.mark.parametrize("architecture", layers.ARCHITECTURES)
def test_synthesis_architectures(architecture):
    network = nets.SynthesisNetwork(w_dim=8, img_resolution=16, img_channels=3, architecture=architecture, **TINY)
    ws = torch.randn([2, network.num_ws, 8], requires_grad=True)
    picture = network(ws, noise_mode="const")
    assert picture.shape == (2, 3, 16, 16) and picture.dtype == torch.float32
    picture.sum().backward()
    assert (ws.grad.abs().sum(dim=[0, 2]) > 0).all()  # every row of ws is used
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert hasattr(network.b8, "torgb") == (architecture == "skip") and hasattr(network.b8, "skip") == (
        architecture == "resnet"
    )


@pytest.mark.parametrize("architecture", layers.ARCHITECTURES)
@pytest.mark.parametrize("cls", [DualDiscriminator, MaskDualDiscriminator, MaskDualDiscriminatorV2])
def test_discriminator_architectures(cls, architecture):
    network = cls(c_dim=25, img_resolution=32, img_channels=3, seg_resolution=16, architecture=architecture, **TINY)
    pictures = {name: picture.requires_grad_() for name, picture in head_pictures().items()}
    logits = network(pictures, torch.randn([4, 25]))
    assert logits.shape == (4, 1)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    seen = {name for name, picture in pictures.items() if picture.grad is not None and picture.grad.any()}
    assert seen == ({"image", "image_raw"} if cls is DualDiscriminator else set(pictures))


@pytest.mark.parametrize("block", [nets.SynthesisBlock, nets.DiscriminatorBlock])
def test_unknown_architecture_is_refused(block):
    if block is nets.SynthesisBlock:
        kwargs = dict(in_channels=4, out_channels=4, w_dim=8, is_last=False)
    else:
        kwargs = dict(in_channels=4, tmp_channels=4, out_channels=4, first_layer_idx=0)
    with pytest.raises(ValueError, match="orig, skip, resnet"):
        block(resolution=8, img_channels=3, architecture="dense", **kwargs)


@pytest.mark.parametrize("count", [0, 3, 6])
def test_frozen_layers_are_buffers(count):
    network = DualDiscriminator(c_dim=0, img_resolution=16, img_channels=3, block_kwargs=dict(freeze_layers=count), **TINY)
    layers = [network.b16.fromrgb, network.b16.conv0, network.b16.conv1, network.b16.skip]
    layers += [network.b8.conv0, network.b8.conv1, network.b8.skip]  # in the order of their numbers
    frozen = [not list(layer.parameters()) for layer in layers]
    assert frozen == [index < count for index in range(len(layers))]
    names = set(network.state_dict())
    assert {"b16.fromrgb.weight", "b16.fromrgb.bias"} <= names  # in the snapshot nevertheless
    logits = network(head_pictures(size=16), None)
    logits.sum().backward()


def test_minibatch_deviation():
    layer = nets.MinibatchStdLayer(group_size=2, num_channels=2)
    x = torch.randn([4, 6, 3, 3])
    result = layer(x)
    assert result.shape == (4, 8, 3, 3) and torch.equal(result[:, :6], x)
    for pair in ((0, 2), (1, 3)):  # samples half a batch apart form a group
        for channel in range(2):
            part = x[list(pair), 3 * channel : 3 * channel + 3]
            expected = ((part - part.mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt().mean()
            found = result[list(pair), 6 + channel]
            torch.testing.assert_close(found, expected.expand_as(found))


def test_minibatch_deviation_of_equal_samples_is_nothing():
    x = torch.randn([1, 4, 3, 3]).expand(4, -1, -1, -1)
    assert nets.MinibatchStdLayer(group_size=None)(x)[:, 4:].max() < 2e-4  # the root of its epsilon


def test_minibatch_group_is_at_most_the_batch():
    assert nets.MinibatchStdLayer(group_size=4)(torch.randn([2, 4, 3, 3])).shape == (2, 5, 3, 3)


def test_label_noise_of_the_discriminator_leaves_the_labels_alone():
    network = DualDiscriminator(c_dim=25, img_resolution=16, img_channels=3, disc_c_noise=0.5, **TINY)
    pictures, labels = head_pictures(size=16), torch.randn([4, 25])
    before = labels.clone()
    assert not torch.equal(network(pictures, labels), network(pictures, labels))
    assert torch.equal(labels, before)


# Sizes


@pytest.mark.parametrize("resolution", [0, 2, 48, 100])
def test_resolutions_that_are_no_power_of_two_are_refused(resolution):
    for build in (
        lambda: nets.SynthesisNetwork(w_dim=8, img_resolution=resolution, img_channels=3),
        lambda: DualDiscriminator(c_dim=0, img_resolution=resolution, img_channels=3),
        lambda: MaskDualDiscriminator(c_dim=0, img_resolution=16, img_channels=3, seg_resolution=resolution),
    ):
        with pytest.raises(ValueError, match="power of two"):
            build()


def test_widths_and_precision_by_resolution():
    assert [layers.channels_at(r, 32768, 512) for r in (4, 64, 128, 512)] == [512, 512, 256, 64]
    assert [layers.first_fp16_resolution(512, n) for n in (0, 1, 4, 20)] == [1024, 512, 64, 8]


@pytest.mark.parametrize("name", superresolution.LAYOUTS)
def test_superresolution_sizes(name):
    layout = superresolution.LAYOUTS[name]
    cls = getattr(superresolution, name)
    module = cls(channels=32, img_resolution=layout.output_resolution, sr_num_fp16_res=0, sr_antialias=True, w_dim=8)
    sizes = dict(SuperresolutionHybrid2X=128, SuperresolutionSlim2X=128, SuperresolutionHybrid4X=256)
    assert layout.output_resolution == sizes.get(name, 512)
    assert ("resample_filter" in module.state_dict()) == (name != "SuperresolutionHybrid8XDC")
    with torch.no_grad():
        result = module(torch.randn([1, 3, 16, 16]), torch.randn([1, 32, 16, 16]), torch.randn([1, 4, 8]), noise_mode="none")
    assert result.shape == (1, 3, layout.output_resolution, layout.output_resolution)
    with pytest.raises(ValueError, match="pixels, not 64"):
        cls(channels=32, img_resolution=64, sr_num_fp16_res=0, sr_antialias=True)


def test_superresolution_takes_the_last_row_of_ws():
    module = superresolution.SuperresolutionHybrid2X(32, 128, sr_num_fp16_res=0, sr_antialias=True, w_dim=8)
    rgb, x, ws = torch.randn([1, 3, 64, 64]), torch.randn([1, 32, 64, 64]), torch.randn([1, 4, 8])
    other = ws.clone()
    other[:, :3] = 0
    with torch.no_grad():
        assert torch.equal(module(rgb, x, ws, noise_mode="none"), module(rgb, x, other, noise_mode="none"))


# Resizing of what the discriminator sees


def test_filtered_resizing_modes():
    image, f = torch.randn([2, 3, 32, 32]), upfirdn2d.setup_filter(layers.LOWPASS)
    smooth = F.interpolate(image, size=(12, 12), mode="bilinear", antialias=True)
    plain = F.interpolate(image, size=(12, 12), mode="bilinear", antialias=False)
    assert torch.equal(filtered_resizing(image, 12), smooth)
    assert torch.equal(filtered_resizing(image, 12, filter_mode="none"), plain)
    assert not torch.allclose(smooth, plain)
    torch.testing.assert_close(filtered_resizing(image, 12, filter_mode=0.25), 0.75 * smooth + 0.25 * plain)
    assert filtered_resizing(image, 12, f, filter_mode="classic").shape == (2, 3, 12, 12)


def test_classic_resizing_keeps_brightness_and_place():
    ramp = torch.linspace(0, 1, 32)[None, None, None].expand(1, 1, 32, 32)
    result = filtered_resizing(ramp, 64, upfirdn2d.setup_filter(layers.LOWPASS), filter_mode="classic")
    expected = F.interpolate(ramp, size=(64, 64), mode="bilinear")
    torch.testing.assert_close(result[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8], atol=0.02, rtol=0)


@pytest.mark.parametrize("name, size", [("SuperresolutionHybrid2X", 64), ("SuperresolutionHybrid4X", 128)])
def test_superresolution_leaves_the_raw_picture_as_it_was_rendered(name, size):
    output = superresolution.LAYOUTS[name].output_resolution
    network = getattr(superresolution, name)(channels=4, img_resolution=output, sr_num_fp16_res=0, sr_antialias=True, w_dim=8)
    raw = torch.randn(1, 3, size, size)
    seen = raw.clone()
    network(seen, torch.randn(1, 4, size, size), torch.randn(1, 3, 8))
    assert torch.equal(seen, raw)


def test_synthesis_may_start_from_a_finer_constant():
    net = nets.SynthesisNetwork(w_dim=8, img_resolution=32, img_channels=3, const_resolution=16, **TINY)
    assert [name for name, _ in net.named_children()] == ["b16", "b32"] and net.b16.const.shape[1:] == (16, 16)
    assert net.num_ws == 4 and net(torch.randn([2, 4, 8])).shape == (2, 3, 32, 32)
    for wrong in (2, 12, 64):
        with pytest.raises(ValueError):
            nets.SynthesisNetwork(w_dim=8, img_resolution=32, img_channels=3, const_resolution=wrong, **TINY)
