"""Queries and documents, drawn from a word list with a fixed seed: the same on every machine.

A short document has 50 words on average, which makes 66 tokens of a pair with its query; the lengths
spread as those of passages do. The words are common ones, so that most of them are one token.
"""

import json
import random

SHORT_WORDS = 50
WORDS = """
the of and to in is that for it as was with be by on not he this are or his from at which but have an had
they you were their one all we can her has there been if more when will would who so no out up into them
then she some could time these two may first now people my made over did down only way find use water long
little very after words called just where most know get through back much before go good new write our used
me man too any day same right look think also around another came come work three word must because does
part even place well such here take why things help put years different away again off went old number
great tell men say small every found still between name should home big give air line set own under read
last never us left end along while might next sound below saw something thought both few those always show
large often together asked house world going want school important until form food keep children feet land
side without boy once animals life enough took four head above kind began almost live page got earth need
far hand high year mother light country father let night picture being study second soon story since white
ever paper hard near sentence better best across during today however sure knew it's try told young sun
thing whole hear example heard several change answer room sea against top turned learn point city play
toward five himself usually money seen car morning body upon family later turn move face door cut done
group true half red fish plants living black eat short united states run book gave order open ground cold
really table remember tree course front space inside ago sad early learned brought close nothing though
idea lived became add become grow draw yet less wind behind cannot letter among able dog shown mean english
rest perhaps certain six feel fire ready green built special ran full town complete oh person hot anything
hold state list stood hundred ten fast felt kept notice strong voice probably area horse matter stand box
start class surface river common stay
""".split()


class Texts:
    """A source of texts; the seed decides all of them."""

    def __init__(self, seed):
        """Starts at the seed."""
        self.random = random.Random(seed)

    def words(self, count):
        """That many words in sentences of 6 to 18."""
        sentences = []
        while count > 0:
            length = min(count, self.random.randint(6, 18))
            words = self.random.choices(WORDS, k=length)
            sentences.append(" ".join(words).capitalize() + ".")
            count -= length
        return " ".join(sentences)

    def query(self):
        """A question of 5 to 9 words."""
        return "what " + self.words(self.random.randint(4, 8)).lower().rstrip(".") + "?"

    def short(self):
        """A short document: log-normal in length around `SHORT_WORDS`."""
        words = round(SHORT_WORDS * self.random.lognormvariate(-0.045, 0.3))
        return self.words(max(8, min(words, 110)))

    def pairs(self, count):
        """A query and that many short documents."""
        return self.query(), [self.short() for _ in range(count)]

    def mixed(self):
        """A query with documents of mixed number and length.

        Most requests are small; one of a hundred has twenty documents, another one a document that
        is longer than the model's window.
        """
        kind = self.random.random()
        if kind < 0.01:
            return self.query(), [self.short() for _ in range(20)]
        if kind < 0.02:
            return self.query(), [self.words(self.random.randint(400, 900))]
        count = self.random.choice((1, 1, 1, 2))
        return self.query(), [self.words(self.random.randint(3, 30)) for _ in range(count)]


def body(query, documents, model="local"):
    """The JSON that Cohere's interface takes, and those that imitate it."""
    return json.dumps({"model": model, "query": query, "documents": documents}).encode()
