"""A processor of your own: the words of a text, counted, most frequent first."""

from collections import Counter

from worker_image.processors import SOURCE, InputError, OwnProcessor, Stage


class WordCount(OwnProcessor):
    name, version, made_from = "wordcount", 1, {"counts.tsv": SOURCE}

    def make(self, kind, given, target):
        yield Stage("count", 0.0)
        counts = Counter(given.read_text(errors="replace").lower().split())
        if not counts:
            raise InputError("the text holds no words")
        lines = (f"{word}\t{n}\n" for word, n in counts.most_common(self.params.get("top")))
        target.write_text("".join(lines))
