"""English sentences drawn from a small grammar, so that synthetic speakers never run out of things to say."""

from __future__ import annotations

import re

from encore.synthetic_corpora import Rng

_WORDS = {
    "noun": """
        anchor author balloon beacon bicycle bird book bridge butcher captain chair cheese church clock
        cousin daughter desk dragon engine farmer father fish friend garden ghost glove hammer horse house
        island jewel judge kettle knife lamp leaf letter map mirror mother mountain neighbour nurse orchard
        owl painter picture pilot pocket queen rabbit river rope sailor school shadow ship shoe singer
        snake stone table thief thunder tower toy train treasure uncle valley village violin whale wheel
        window yard zebra""",
    "adjective": """
        ancient angry blue broken calm cheap clever cold curious dark empty famous fierce fresh friendly
        gentle green happy heavy huge icy jolly lazy loud modern narrow old orange patient plain quick
        quiet rare rusty sharp shiny silent small smooth strange thick unusual vast violet warm white wise
        wooden young""",
    "transitive": """
        admired borrowed brought caught checked chose cleaned covered discovered drew explained forgot
        found guarded heard imagined judged lifted loved measured noticed opened painted pulled pushed
        remembered shook sold studied threw touched understood visited watched""",
    "intransitive": """
        agreed arrived breathed coughed danced escaped fell flew hesitated jumped laughed listened played
        sang shivered shouted slept smiled spoke swam travelled vanished waited whispered worked yawned""",
    "adverb": """
        again boldly briefly cheerfully clearly eagerly finally gently honestly loudly often patiently
        quietly rarely slowly smoothly strangely suddenly together usually""",
    "name": """
        Alice Boris Carlos Charlotte Daniel Edith Farid Fiona George Hannah Igor Jasper Kenji Laura Nadia
        Oscar Priya Quentin Rosa Thomas Uma Victor Wendy Xavier Yusuf Zoe""",
    "city": """
        Athens Bristol Cairo Dublin Florence Geneva Houston Jakarta Leeds Lima Madrid Nairobi Oslo Paris
        Quebec Seattle Tokyo Vienna Warsaw Zurich""",
    "unit": "days weeks months years hours minutes miles pounds dollars feet yards seconds pages",
    "preposition": "above across after against along behind below beside between beyond past through under",
    "article": "the the the a a this that every another my your our their his her one some",
    "digit": "two three four five six seven eight nine",
    "teen": "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
    "ten": "twenty thirty forty fifty sixty seventy eighty ninety",
    "month": "January February March April May June July August September October November December",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "linker": "and but because while although before after until since whenever unless so",
}
_RULES = {
    "number": "{digit}|{teen}|{ten}|{ten} {digit}|{digit} hundred and {ten} {digit}|{digit} thousand",
    "thing": "{article} {noun}|{article} {adjective} {noun}|{article} {adjective}, {adjective} {noun}",
    "who": "{name}|{name} and {name}|{thing}|{article} {noun} from {city}|{number} {adjective} people",
    "where": "in {city}|{preposition} {thing}|{preposition} the {noun} and the {noun}|near {city}",
    "when": "on {day}|in {month}|at {teen} o'clock|{number} {unit} ago|last {day}|every {day}",
    "act": """
        {transitive} {thing} | {transitive} {thing} {where} | {intransitive} {where}
        | {adverb} {transitive} {thing} | {intransitive} {adverb}""",
    "sentence": """
        {who} {act} {when}. | {when}, {who} {act}. | {who} {act} {linker} {who} {act}.
        | {adverb}, {who} {act} {where}. | do you think that {who} {act}?
        | there were {number} {adjective} things {where}, {name} said.
        | the {noun} costs {number} pounds and {number} pence.""",
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
