"""The report as a user makes it: what it shows, what it survives, how it looks."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from slotcon_tf import backbone
from slotcon_tf.visualize import label_colors
from slotcon_tf.visualize.colors import hex_color
from tests.support.command import TINY, modules, pretrain
from tests.support.page_case import Page
from trainers import visualize

SIZES = ((64, 48), (40, 90), (200, 50), (33, 33), (7, 5), (700, 300), (64, 64), (9, 80))
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]
ALL = ["scores", "curves", "slots", "components", "prototypes", "usage"]


VISUALIZE = "trainers.visualize"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Small images of many sizes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.NEAREST)
        image.save(folder / f"photo_{number}.png")
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, photos):
    """A run without an export, as one that has not ended."""
    folder = tmp_path_factory.mktemp("runs") / "a <b>bold</b> & run"
    data = ["--dataset=folder", f"--data_dir={photos}"]
    pretrain(*TINY, *data, "--epochs=2", "--noexport", f"--workdir={folder}")
    scores = {
        "task": "linear_segmentation",
        "dataset": "streets",
        "split": "val",
        "rows": {
            "miou": {
                "untrained": [0.125, 0.1, 0.15],
                "trained": [0.25, None, None],
                "difference": [-0.0625, -0.1, 0.01],
            },
            "accuracy": {"untrained": None, "trained": [None] * 3},
        },
        "classes": {"<script>": {"untrained": 0.5, "trained": None}},
        "settings": {"epochs": 3},
    }
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "linear.json").write_text(json.dumps(scores))
    (folder / "evaluation" / "torn.json").write_text('{"rows": ')
    return folder


@pytest.fixture(scope="module")
def drawn(workdir, photos, tmp_path_factory):
    """The commands' ended processes by name, and their folder."""
    folder = tmp_path_factory.mktemp("drawn")
    mixed, bare, bad = folder / "mixed", folder / "bare", folder / "bad"
    shutil.copytree(photos, mixed)
    (mixed / "broken <i>.jpg").write_text("<html>no picture</html>")
    bad.mkdir()
    (bad / "bad.jpg").write_text("no picture")
    shutil.copytree(workdir, bare, ignore=shutil.ignore_patterns("evaluation"))
    (bare / "history.csv").unlink()
    of_run = [VISUALIZE, f"--model={workdir}"]
    lines = {
        "whole": [*of_run, f"--data_dir={mixed}", f"--pictures={folder / 'pictures'}"],
        "bare": [
            *(VISUALIZE, f"--model={bare}", f"--data_dir={photos}"),
            *("--num_images=1", "--prototype_images=1", "--max_prototypes=1"),
            *(f"--output={folder / 'deep' / 'page.html'}", "--which=student"),
            "--scale=2",
        ],
        "nowhere": [*of_run, f"--data_dir={folder / 'none'}"],
        "no image": [*of_run, f"--data_dir={bad}", f"--output={bad / 'page.html'}"],
    }
    ended = dict(zip(lines, modules(*lines.values(), check=False), strict=True))
    return ended, folder


@pytest.fixture(scope="module")
def report(workdir, drawn):
    """The command's process, the page, and the folder of its pictures."""
    ended, folder = drawn
    assert ended["whole"].returncode == 0, ended["whole"].stderr[-2000:]
    return ended["whole"], workdir / "report.html", folder / "pictures"


@pytest.mark.slow
def test_the_page_has_every_section_and_needs_nothing_else(report):
    done, path, _ = report
    page = Page(path)
    assert page.sections == ALL
    assert f"Written: {path}" in done.stdout
    assert "http://" not in page.source and "https://" not in page.source
    for reference in page.references:
        assert reference.startswith(("data:", "#")), reference
    assert not re.findall(r"url\((?!#)|@import", page.source)
    for name in ALL:
        assert f"#{name}" in page.references
    assert all(image["alt"] for image in page.images)
    assert len(page.source) < 15e6


@pytest.mark.slow
def test_names_are_text_not_markup(report):
    page = Page(report[1])
    assert "a <b>bold</b> & run" in page.text
    assert "<script>" in page.text and "broken <i>.jpg" in page.text


@pytest.mark.slow
def test_scores_are_told_with_their_intervals(report):
    text = Page(report[1]).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "linear segmentation: streets" in text
    assert "0.125 (0.100 to 0.150)" in text and "−0.062 (−0.100 to 0.010)" in text
    assert "torn.json" in text  # said, and no reason to fail


@pytest.mark.slow
def test_bad_images_are_left_out_with_a_word(report):
    done, path, _ = report
    assert "Skipped" in done.stderr and "broken <i>.jpg" in done.stderr
    page = Page(path)
    assert "1 bad image was left out" in page.text
    assert not any("broken" in image["alt"] for image in page.images)


@pytest.mark.slow
def test_pictures_keep_their_aspect_and_are_not_small(report):
    _, path, folder = report
    for number, (width, height) in enumerate(SIZES):
        (picture,) = folder.glob(f"slots_*_photo_{number}.png")
        with Image.open(picture) as image:
            edge = max(image.size)
            expected = [
                max(1, round(n * edge / max(width, height))) for n in SIZES[number]
            ]
            assert list(image.size) == expected and 320 <= edge <= 640
    assert (folder / "usage.png").exists() and (folder / "curve_loss.png").exists()
    assert len(list(folder.glob("prototype_*.png"))) > 1
    assert sum(f"photo_{n}.png" in Page(path).text for n in range(8)) == 8


@pytest.mark.slow
def test_a_prototype_has_one_colour_on_the_whole_page(report):
    colors = [f"background:{hex_color(c)}" for c in label_colors(8)]
    chips = Page(report[1]).chips
    assert chips
    assert chips <= set(enumerate(colors))


@pytest.mark.slow
def test_a_run_without_a_history_and_one_image(drawn):
    ended, folder = drawn
    assert ended["bare"].returncode == 0, ended["bare"].stderr[-2000:]
    assert Page(folder / "deep" / "page.html").sections == ALL[2:]


def test_an_encoder_alone_shows_its_features_and_says_so(photos, tmp_path):
    backbone("resnet18").save(tmp_path / "encoder.keras")
    output = tmp_path / "page.html"
    words = [f"--model={tmp_path / 'encoder.keras'}", f"--data_dir={photos}"]
    with pytest.raises(SystemExit, match="0"):
        visualize.main(["visualize", *words, f"--output={output}", "--num_images=3"])
    page = Page(output)
    assert page.sections == ["components"]
    assert "an encoder alone" in page.text
    assert len(page.images) == 9


@pytest.mark.slow
def test_errors_are_sentences(drawn):
    ended, folder = drawn
    for name, words in (
        ("nowhere", "visualize: Dataset 'folder' needs"),
        ("no image", "One image at least"),
    ):
        assert ended[name].returncode == 1 and words in ended[name].stderr
        assert "Traceback" not in ended[name].stderr
    assert not (folder / "bad" / "page.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_the_page_looks_like_one_in_a_browser(report, tmp_path):
    page = tmp_path / "page.html"
    # Counted by the browser: pictures that it cannot show, and what sticks out.
    probe = (
        "<script>addEventListener('load', () => { const all = [...document.images];"
        "const broken = all.filter((i) => !i.naturalWidth).length;"
        "const wide = document.documentElement.scrollWidth > innerWidth;"
        "document.body.append(`shown ${all.length} broken ${broken} wide ${wide}`)"
        "})</script>"
    )
    page.write_text(report[1].read_text().replace("</body>", probe + "</body>"))
    for width in (500, 1200):
        shot = tmp_path / f"{width}.png"
        browser = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / str(width)}"]
        done = subprocess.run(
            [*browser, f"--window-size={width},3000", f"--screenshot={shot}"]
            + ["--dump-dom", page.as_uri()],
            capture_output=True,
            text=True,
        )
        shown = len(Page(report[1]).images)
        assert f"shown {shown} broken 0 wide false" in done.stdout, done.stderr[-1000:]
        with Image.open(shot) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert pixels.shape[1] == width
        assert (np.ptp(pixels, axis=(1, 2)) > 20).mean() > 0.3  # rows with content
        assert len(np.unique(pixels.reshape(-1, 3) // 16, axis=0)) > 50
