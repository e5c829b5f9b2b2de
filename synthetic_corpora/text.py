"""English sentences drawn from a small grammar, so that synthetic speakers never run out of things to say."""

from __future__ import annotations

import re

from encore.synthetic_corpora import Rng

_WORDS = {
    "noun": """
        anchor author balloon beacon bicycle bird boat book bridge butcher captain cat chair cheese church
        clock cousin cup daughter desk dog dragon eagle engine farmer father fence fish friend garden ghost
        glove guitar hammer harbour horse house island jewel judge kettle kitchen knife lamp leaf letter
        machine map mirror monkey mother mountain mushroom neighbour nurse oak orchard owl painter picture
        pilot pocket prince queen rabbit railway river rope sailor school shadow ship shoe singer snake
        soldier stable stone student table tent thief thunder tower toy train treasure uncle valley village
        violin wagon whale wheel window wizard yard zebra""",
    "adjective": """
        ancient angry blue brave broken calm cheap clever cold curious dark deep dusty early empty famous
        fierce fresh friendly gentle golden green happy heavy huge icy jolly large lazy lonely loud lucky
        modern narrow noisy old orange patient perfect plain proud quick quiet rare rough rusty sharp shiny
        short silent slow smooth strange strong thick tiny unusual useful vast violet warm white wise
        wooden yellow young""",
    "transitive": """
        admired borrowed bought brought caught checked chose cleaned counted covered described discovered
        drew dropped explained finished forgot found guarded heard imagined judged kept lifted loved
        measured missed noticed opened painted promised pulled pushed remembered repaired searched shook
        sold stole studied taught threw touched understood visited washed watched""",
    "intransitive": """
        agreed arrived began breathed coughed danced escaped fell flew frowned hesitated jumped laughed
        listened paused played returned sang shivered shouted slept smiled spoke stumbled swam travelled
        vanished waited whispered whistled worked yawned""",
    "adverb": """
        again boldly briefly calmly cheerfully clearly eagerly easily finally gently happily honestly
        kindly loudly neatly often patiently politely quickly quietly rarely slowly smoothly strangely
        suddenly together usually wisely""",
    "name": """
        Alice Arthur Boris Carlos Charlotte Chen Daniel Edith Farid Fiona George Hannah Igor Jasper Kenji
        Laura Malik Nadia Oscar Priya Quentin Rosa Sofia Thomas Uma Victor Wendy Xavier Yusuf Zoe""",
    "city": """
        Athens Bristol Cairo Chicago Dublin Florence Geneva Houston Jakarta Kingston Leeds Lima Madrid
        Montreal Nairobi Oslo Paris Quebec Seattle Tokyo Vienna Warsaw York Zurich""",
    "unit": "days weeks months years hours minutes miles pounds dollars feet yards seconds pages",
    "preposition": "above across after against along behind below beside between beyond past through under",
    "article": "the the the a a this that every another my your our their his her one some",
    "digit": "two three four five six seven eight nine",
    "teen": "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
    "ten": "twenty thirty forty fifty sixty seventy eighty ninety",
    "month": "January February March April May June July August September October November December",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "question": "where when why how",
    "linker": "and but because while although before after until since whenever unless so",
    "modal": "can could may might must should will would cannot",
    "bare": """
        answer ask bake begin believe bend build call carry change choose clean close cook cross dance draw
        drive explain fetch find finish fix follow help hide hold invite join know laugh leave lend listen
        mend open order paint pay play pour pull push read remember rest return ride sell send share shout
        sing sleep speak stay stop study swim teach travel try wait wake walk wash watch win write""",
}
_RULES = {
    "number": "{digit}|{teen}|{ten}|{ten} {digit}|{digit} hundred and {ten} {digit}|{digit} thousand",
    "thing": "{article} {noun}|{article} {adjective} {noun}|{article} {adjective}, {adjective} {noun}",
    "who": "{name}|{name} and {name}|{thing}|{article} {noun} from {city}|{number} {adjective} people",
    "where": "in {city}|{preposition} {thing}|{preposition} the {noun} and the {noun}|near {city}",
    "when": "on {day}|in {month}|at {teen} o'clock|{number} {unit} ago|last {day}|every {day}",
    "act": """
        {transitive} {thing} | {transitive} {thing} {where} | {intransitive} {where}
        | {adverb} {transitive} {thing} | {intransitive} {adverb} | {modal} {bare} {where}
        | {modal} {bare} with {who}""",
    "sentence": """
        {who} {act} {when}. | {when}, {who} {act}. | {who} {act} {linker} {who} {act}.
        | {adverb}, {who} {act} {where}. | {question} did {who} {bare} {thing}?
        | do you think that {who} {act}? | please {bare} {thing} and {bare} {where}.
        | there were {number} {adjective} things {where}, {name} said.
        | it took {number} {unit} to {bare} the {adjective} {noun}.
        | if {who} {act}, {name} {modal} {bare} {when}. | {who}, who {act}, {modal} not {bare} {thing}.
        | the {noun} costs {number} pounds and {number} pence. | never {bare} {thing} {where} {when}!""",
}
_OPTIONS = {
    **{kind: words.split() for kind, words in _WORDS.items()},
    **{kind: [rule.strip() for rule in rules.split("|")] for kind, rules in _RULES.items()},
}


def draw_sentence(rng: Rng) -> str:
    """Draw a sentence of some 5 to 25 words, capitalized and with its punctuation."""

    def draw(match: re.Match[str]) -> str:
        options = _OPTIONS[match.group(1)]
        return options[int(rng.integers(len(options)))]

    text = "{sentence}"
    while "{" in text:
        text = re.sub(r"\{(\w+)\}", draw, text)
    return text[0].upper() + text[1:]
