import dataclasses
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from recsys_kd.data.counts import Counts, Varying
from recsys_kd.evaluate.charts import ticks
from recsys_kd.evaluate.evaluation import Interval, evaluate, measured_interval
from recsys_kd.evaluate.gate import UNTAUGHT, Subject, Verdict, calibrated, decide, not_worse
from recsys_kd.evaluate.metrics import row_metrics
from recsys_kd.evaluate.report import Report, Size, human_bytes, render, times, write_report
from recsys_kd.evaluate.sample import Sample
from recsys_kd.settings import EvaluateConfig, GateConfig

SUBJECT = Subject("a" * 64, "d" * 64, 1000, 30_000, champion=False)


def evaluation(noise=0.0, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(200), 20)
    z = rng.normal(size=4000)
    label = (rng.random(4000) < 1 / (1 + np.exp(-z))).astype(np.float32)
    sample = Sample(label, np.ones(4000, dtype=np.float32), user, np.arange(4000) // 10)
    served = (z + shift + noise * rng.normal(size=4000)).astype(np.float32)
    logits = {
        "teacher": z.astype(np.float32),
        "control": served,
        "control served": served,
        "student": served,
        "pruned": served,
        "recovered": served,
        "served": served,
    }
    pairs = (("served", "teacher"), ("served", "control served"), ("control", "teacher"))
    return evaluate(logits, sample, EvaluateConfig(ece_bins=5), pairs, {"all <rows>": user >= 0, "few": user < 2})


def report(**more):
    found = evaluation()
    verdict = decide(GateConfig(max_ece=0.2), found, SUBJECT, (10,))
    fits = {
        "teacher": {
            "epochs": [{"train_loss": 0.6, "validation_loss": 0.61}, {"train_loss": 0.5, "validation_loss": 0.58}],
            "best": 1,
        }
    }
    values = {
        "name": "shop", "created": "2026-01-01", "artifact": "a" * 64, "verdict": verdict.to_json(),
        "evaluation": found.to_json(),
        "sizes": {"teacher": Size(30_000, 900.0), "served": Size(1000, 30.0)},
        "plan": {
            "rows": {"item": 5},
            "rank": {"item": 3},
            "bits": {"item": 4},
            "budget_bytes": 1100,
            "predicted_bytes": 1000,
            "predicted_loss": 0.0123,
        },
        "export": {"mean_logit_gap": 0.001, "worst_logit_gap": 0.01}, "fits": fits,
        "fallback": {"before": {"user_id": 0.1}, "after": {"user_id": 0.2}},
        "counts": {"read": 10, "used": 7, "deduplicated": 1, "quarantined": {"nan": 2}, "files": 1, "empty_files": 0,
                   "files_without_checksums": 0, "excluded_files": [], "bad_items": {}, "missing_items": 0},
        "splits": {"train": 5}, "stages": {"read": "run"}, "ceiling": 0.9, "command": "recsys-kd run r.yaml",
        "recipe": "name: <script>alert(1)</script>", "versions": {"python": "3.11"}, "digests": {"data": "d" * 64},
    }  # fmt: skip
    return Report(**{**values, **more})


def test_unknown_ids_are_shown_beside_those_that_use_the_fallback_row():
    shares = {"unknown": {"item_id": 0.077}, "before": {"item_id": 0.001}, "after": {"item_id": 0.25}}
    page = render(report(fallback=shares))
    assert "<th>field</th><th>unknown ids</th><th>fallback row, before pruning</th><th>served</th>" in page
    assert "<td>item_id</td><td>7.70%</td><td>0.10%</td><td>25.00%</td>" in page
    assert "an unknown item whose fields are known keeps a row of its own" in page
    assert "<td>user_id</td><td>10.00%</td><td>20.00%</td>" in render(report())  # a report written before this column


def test_the_report_says_what_decides_which_epoch_is_kept():
    epochs = [{"train_loss": 0.6, "validation_loss": 0.58, "validation_auc": 0.71},
              {"train_loss": 0.5, "validation_loss": 0.61, "validation_auc": 0.72}]  # fmt: skip
    one_class = [{"train_loss": 0.6, "validation_loss": 0.58, "validation_auc": None}]
    fits = {"teacher": {"epochs": epochs, "best": 1}, "control": {"epochs": one_class, "best": 0}}
    page = render(report(fits={**fits, "student": {"epochs": [], "best": 0}}))
    assert "Kept is the epoch of the highest validation AUC, not of the lowest loss" in page
    assert "Epochs: teacher 2 (0.7200), control 1 (by loss, there being no AUC)." in page
    assert "Kept is the epoch" not in render(report(fits={}))


def test_the_report_says_what_is_served_of_a_students_two_heads():
    epochs = [{"train_loss": 0.6, "validation_loss": 0.58, "validation_auc": 0.71}]

    def page(auxiliary):
        mix = {"serving": 0.36, "auxiliary": auxiliary, "offset": 0.1}
        return render(report(fits={"student": {"epochs": epochs, "best": 0, "mix": mix}}))

    assert "serves 0.36 times the logit of its head that learned labels plus 0.48 times that of its head" in page(0.48)
    assert "student serves" not in page(0.0)


def test_an_equal_model_passes_and_a_worse_one_is_held_back_with_the_reason():
    assert decide(GateConfig(max_ece=0.2), evaluation(), SUBJECT, (10,)).passed
    verdict = decide(GateConfig(max_ece=0.9), evaluation(noise=2.0), SUBJECT, (10,))
    assert not verdict.passed
    failed = [c for c in verdict.checks if c.gates and not c.passed]
    assert [c.name for c in failed] == ["auc against the teacher"] and "margin of 0.01" in failed[0].sentence


def test_a_student_that_is_its_control_is_told_to_score_alike():
    checks = decide(GateConfig(max_ece=0.2), evaluation(), SUBJECT, (10,)).checks
    assert next(c for c in checks if c.name == "against control").sentence.endswith(": both score alike")


def test_the_interval_decides_not_the_mean():
    found = evaluation(noise=0.05)
    delta = found.deltas["served - teacher"]["auc"]
    between = GateConfig(max_ece=0.2, teacher_margin=(-delta.value - delta.low) / 2)
    assert delta.low < -between.teacher_margin < delta.value
    assert not decide(between, found, SUBJECT, (10,)).passed


def test_a_hit_rate_that_every_model_has_holds_back_and_is_not_shown():
    # Every request has 10 candidates: one of the first 10 is a click, whoever ranks.
    verdict = decide(GateConfig(metric="hit_rate", max_ece=0.2), evaluation(), SUBJECT, (10,))
    check = next(c for c in verdict.checks if c.name == "hit_rate@10 against the teacher")
    assert not verdict.passed and "can't decide: no request has more than 10 candidates" in check.sentence
    page = render(report())
    assert "hit_rate@10 says nothing here: no request has more than 10 candidates" in page and "1.0000" not in page


@pytest.mark.parametrize(
    ("change", "shift", "name"), [({"max_ece": 0.1}, 1.0, "calibration"), ({"min_ratio": 31}, 0.0, "size")]
)
def test_calibration_and_size_gate_too(change, shift, name):
    found = evaluation(shift=shift)
    verdict = decide(GateConfig.model_validate({"max_ece": 0.3, **change}), found, SUBJECT, (10,))
    assert [c.name for c in verdict.checks if c.gates and not c.passed] == [name]


def drawn(rng, rows, shift=0.0):
    """Return the ECE's interval of a model whose logits are `shift` off, on a fresh log of users with 20 rows each."""
    z = rng.normal(size=rows) - 1
    label = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(np.float32)
    user = np.arange(rows) // 20
    sample = Sample(label, np.ones(rows, dtype=np.float32), user, np.arange(rows))
    found = row_metrics((z + shift).astype(np.float32), sample, 20)[0]["ece"]
    return measured_interval(found, 0.95)


def test_a_calibrated_model_is_not_held_back_by_a_small_log():
    rng = np.random.default_rng(4)
    found = [drawn(rng, 4000) for _ in range(200)]
    assert np.mean([f.value > 0.02 for f in found]) > 0.75
    assert np.mean([calibrated("ECE", f, 0.02).passed for f in found]) >= 0.98
    told = calibrated("ECE", max(found, key=lambda f: f.value), 0.02)
    assert "(0.0000 to" in told.sentence and "is not shown to be above 0.02" in told.sentence


def test_a_model_that_is_off_is_held_back_and_ece_begins_below_the_truth():
    rng = np.random.default_rng(5)
    z = np.random.default_rng(6).normal(size=1_000_000) - 1
    truth = np.abs(1 / (1 + np.exp(-z - 0.4)) - 1 / (1 + np.exp(-z))).mean()
    found = [drawn(rng, 40_000, 0.4) for _ in range(40)]
    assert truth > 0.06 and all(f.low < truth for f in found)
    assert np.mean([f.low < truth < f.high for f in found]) >= 0.9
    assert not any(calibrated("ECE", f, 0.04).passed for f in found)
    assert "is above 0.04" in calibrated("ECE", found[0], 0.04).sentence
    assert not calibrated("ECE", Interval(np.nan, np.nan, np.nan), 0.04).passed


@pytest.mark.parametrize(
    ("low", "high", "words", "passed"),
    [(-0.01, 0.0, "stays within", True), (-0.03, 0.0, "may fall outside", False), (-0.04, -0.03, "is outside", False)],
)
def test_a_margin_is_told_as_surely_as_it_is_known(low, high, words, passed):
    found = not_worse("auc against the teacher", "served auc", Interval((low + high) / 2, low, high), 1, 0.02)
    assert found.passed is passed and f"it {words} the margin of 0.02" in found.sentence


@pytest.mark.parametrize(
    ("model", "told"),
    [("the teacher", "the teacher"), ("today's champion", "today's champion"), ("control", "the control")],
)
def test_models_are_told_in_plain_english(model, told):
    check = not_worse(f"auc against {model}", "served auc", Interval(0.0, -0.1, 0.1), 1, 0.2)
    assert check.sentence.startswith(f"served auc is +0.0000 from {told} (")


def test_a_verdict_survives_json_and_names_its_artifact():
    verdict = decide(GateConfig(), evaluation(), SUBJECT, (10,))
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict
    assert verdict.artifact_digest == "a" * 64 and verdict.expires > verdict.created


def test_what_the_catalogue_lacks_is_shown():
    counts = Counts(read=9, used=9, files=1, missing_items=1234, bad_items={"price": 3, "image": 1})
    words = re.sub(r"\s+", " ", render(report(counts=counts.to_json())))
    assert "1,234 items of the log are not in the catalogue. " in words
    assert "Catalogue items without a usable value: price 3, image 1; they get the mean" in words
    assert "catalogue" not in render(report()).lower()


def test_the_page_is_self_contained_escaped_and_well_formed():
    page = render(report())
    assert "<script" not in page and "&lt;script&gt;" in page and "all &lt;rows&gt;" in page
    assert not re.search(r'(src|href)="http', page)
    assert "nan" not in re.sub(r"<[^>]+>", "", page).lower().replace("nan: 2", "")

    class Balance(HTMLParser):
        depth = 0

        def handle_starttag(self, tag, attrs):
            self.depth += tag not in ("meta", "br", "line", "circle", "polyline")

        def handle_endtag(self, tag):
            self.depth -= 1

    parser = Balance()
    parser.feed(re.sub(r"<(line|circle|polyline)[^>]*/>", "", page))
    assert parser.depth == 0
    for words in ("may go live", "30 times smaller", "0.9000", "few: too few rows", "prefers-color-scheme"):
        assert words in page


def test_json_and_page_say_the_same_and_survive_a_round_trip(tmp_path):
    one = report()
    html, data = write_report(one, tmp_path / "r")
    again = Report.from_json(json.loads(data.read_text()))
    assert again.headline == one.headline and one.headline in html.read_text()
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["report.html", "report.json"]


def test_without_a_teacher_on_disk_nothing_is_claimed_about_size():
    one = report(sizes={"teacher": Size(0, None), "served": Size(1000, 30.0)})
    assert one.shrink is None and "smaller" not in one.headline
    assert "smaller: - to 1.0 KB" in render(one) and "faster: - to 30 " in render(one)
    assert dataclasses.replace(one, ceiling=None).ceiling is None and "Ceiling" not in render(
        dataclasses.replace(one, ceiling=None)
    )


def test_sizes_and_ticks_are_readable():
    assert [human_bytes(n) for n in (0, 999, 61_193, 2_500_000)] == ["-", "999 B", "61.2 KB", "2.5 MB"]
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_model_that_is_slower_is_not_called_zero_times_faster():
    assert times(0.4, "faster", "slower") == "2.5 times slower"
    assert times(15.2, "faster", "slower") == "15 times faster" and times(1.5, "faster", "slower") == "1.5 times faster"


def test_what_there_is_to_say_of_values_is_in_the_data_section():
    line = Varying(3, 40, "7", "1.0", "2.0").line("price")
    page = html.unescape(render(report(notes=[line])))
    assert f"<p>{line}.</p>" in page and page.index("<h2>Data</h2>") < page.index(line) < page.index("How to reproduce")
    assert "<p>labels" not in page


def test_the_legend_knows_a_student_that_is_the_control():
    taught = report()
    untaught = {"name": UNTAUGHT, "passed": False, "sentence": "the student was trained as the control", "gates": False}
    checks = [{**taught.verdict["checks"][0], **untaught}, *taught.verdict["checks"]]
    page = render(dataclasses.replace(taught, verdict={**taught.verdict, "checks": checks}))
    assert "student (with the teacher's term)" in render(taught) and "the control itself" not in render(taught)
    assert "student (this night the control itself)" in page and "the teacher's term" not in page


def test_numbers_of_the_stage_table_have_their_intervals_below_them():
    rows = re.search(r'<table class="stages">(.*?)</table>', render(report()), re.S)[1]
    auc = evaluation().metrics["teacher"]["auc"]
    assert f'<td>{auc.value:.4f}<span class="soft">± {auc.high - auc.value:.4f}</span></td>' in rows
    delta = evaluation().deltas["control - teacher"]["auc"]
    told = f'<td>{delta.value:+.4f}<span class="soft">({delta.low:+.4f} to {delta.high:+.4f})</span>'
    assert f'{told}<span class="soft">vs teacher</span></td>' in rows
    assert "<th>normalized entropy</th>" in rows and "_" not in re.sub("<[^>]*>", "", rows)
