"""The size line on Empty Open-Sora Latent says what does not fit, and the page shows our sentence where a run is refused."""

import pytest
from small import pack
from timeline_page import GraphPage

pytestmark = pytest.mark.browser

NODES = {
    "3": {"class_type": "OpenSoraLoadVAE", "inputs": {"vae_name": "tiny (bundled)"}},
    "5": {
        "class_type": "OpenSoraEmptyLatent",
        "inputs": {
            "vae": ["3", 0], "resolution": "auto", "aspect_ratio": "auto", "frames": 20, "fps": 24.0, "width": 424,
            "height": 240, "batch_size": 1, "duration": "by frames",
        },
    },
    "10": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
}  # fmt: skip


def test_what_does_not_fit_is_said_on_the_node_and_by_the_server(each_page):
    shown = GraphPage(each_page, NODES, "OpenSoraEmptyLatent")
    line = shown.page.locator(".opensora-size")

    def says(words, fit, **widgets):
        for name, value in widgets.items():
            shown.set_widget("OpenSoraEmptyLatent", name, value)
        shown.page.wait_for_function(
            "([words, fit]) => { const line = document.querySelector('.opensora-size');"
            " return line.innerText.startsWith(words) && line.dataset.fit === fit }",
            arg=[words, fit],
            timeout=30_000,
        )

    says("20 does not fit: 17 or 21", "no")
    assert line.get_attribute("role") == "status"
    assert not each_page.queue()["success"]
    assert any("frames is 20" in said and "17 and 21" in said for said in each_page.faulty_nodes())
    says("auto size · 21 frames", "yes", frames=21)
    says("auto size · 51 frames", "yes", frames=20, duration="2s")
    says("424 × 244 becomes 424 × 240", "maybe", frames=17, duration="by frames", resolution="custom", height=244)
    says("height 8 does not fit: at least 16", "no", height=8)
    # A file that no run has told of is taken for one of 1.2, and the line says so.
    shown.page.evaluate(
        "() => { app.graph.nodes.find((each) => each.type === 'OpenSoraLoadVAE').widgets[0].value = 'other.safetensors' }"
    )
    says("20 does not fit the VAE of Open-Sora 1.2: 17 or 21", "maybe", frames=20, resolution="auto", height=240)


def test_the_page_counts_as_the_networks_do(page, vaes_of_each_family):
    counts = list(range(1, 140))
    found = page.page.evaluate(
        """async ([counts, families]) => {
            const { nearestFrames } = await import('/extensions/opensora_comfy/timeline_model.js');
            const counted = (family) => counts.map((frames) => nearestFrames(frames, family));
            return Object.fromEntries(families.map((family) => [family, counted(family)]));
        }""",
        [counts, list(vaes_of_each_family)],
    )
    for family, network in vaes_of_each_family.items():
        assert found[family] == [list(network.nearest_frames(frames)) for frames in counts], family


@pytest.fixture(scope="module")
def vaes_of_each_family(comfy):
    from small import small_causal_vae, small_image_vae, small_vae

    assert pack("nodes")
    return {"vae_v1_2": small_vae(), "vae_v1_3": small_causal_vae(), "vae_2d": small_image_vae()}
