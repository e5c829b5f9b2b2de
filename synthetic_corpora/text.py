"""English sentences drawn from a small grammar, so that synthetic speakers never run out of things to say."""

from __future__ import annotations

import re

from encore.synthetic_corpora import Rng

_WORDS = {
    "noun": """
        apple anchor artist author bag baker balloon banker barrel basket beacon bear bell bicycle bird
        blanket boat book bottle box branch bridge brother bucket builder butcher camel candle captain carpet
        carriage cat chair cheese chief child church clock cloud coat coin cook cottage cousin cow cup curtain
        daughter dentist desk doctor dog donkey door dragon dress drum duck eagle engine farmer father feather
        fence field fish flag flower fox friend frog garden gate ghost giant glass glove goat guard guitar
        hammer harbour hat hedge helmet hen hill horse hotel house island jacket jar jewel judge jug kettle
        key king kitchen knife ladder lamp lawyer leaf letter lion lock machine magpie map market mayor meadow
        mirror monkey moon mother mountain mouse mushroom neighbour nest newspaper nurse oak orange orchard
        oven owl painter palace pencil pepper piano picture pigeon pillow pilot pipe plough pocket poet pony
        potato prince pumpkin puzzle queen rabbit radio railway rainbow ribbon ring river robin rocket roof
        rope rose sailor salmon sandwich saucer scarf school scissors shadow sheep shell shepherd ship shoe
        shovel singer sister snake soldier spider spoon squirrel stable star statue stone stranger student
        suitcase table tailor teacher telephone tent thief thunder tiger tower toy tractor train treasure
        truck trumpet turtle uncle valley vase vegetable village violin wagon waiter wall watch whale wheel
        whistle widow window wizard wolf worker yard zebra""",
    "adjective": """
        ancient angry bitter blue brave bright broken calm careful cheap clever cold curious damp dark deep
        dusty eager early empty faint famous fancy fast fierce foggy fresh friendly funny gentle giant golden
        great green grumpy happy heavy hollow honest huge hungry icy invisible jolly kind large lazy little
        lonely long loud lucky modern muddy narrow neat nervous noisy odd old orange patient perfect pink
        plain polite poor proud purple quick quiet rare red rich rough round rusty sad secret shallow sharp
        shiny short shy silent silver sleepy slow small smooth soft sour square steep stiff strange strong
        sweet tall thick thin tiny tired tough unusual useful vast violet warm weak wet white wide wild wise
        wooden worried yellow young""",
    "transitive": """
        admired borrowed bought brought built carried caught chased checked chose cleaned climbed collected
        counted covered described discovered drew dropped examined explained finished followed forgot found
        gathered guarded heard hid ignored imagined joined judged kept kicked lifted liked loved measured
        mended missed moved noticed opened ordered painted photographed picked praised printed promised pulled
        pushed questioned remembered repaired returned reviewed saved searched sent shook showed shut sketched
        sold stole studied taught tested threw touched traded turned understood used visited washed watched
        weighed wrapped""",
    "intransitive": """
        agreed appeared argued arrived began breathed climbed coughed cried danced dreamed escaped failed fell
        flew frowned giggled hesitated hurried jumped knelt laughed learned left listened looked paused played
        rested returned rode sang sat shivered shouted sighed skated slept slipped smiled sneezed spoke stood
        stumbled swam travelled trembled vanished waited walked wandered watched wept whispered whistled won
        worked yawned""",
    "adverb": """
        again alone badly barely boldly bravely briefly calmly carefully cheerfully clearly closely eagerly
        easily finally gently gladly happily hastily honestly kindly lazily loudly nearly neatly nervously
        often openly patiently perfectly politely promptly proudly quickly quietly rarely really safely seldom
        sharply silently simply slowly smoothly softly steadily strangely suddenly surely swiftly together
        truly usually warmly wisely""",
    "name": """
        Alice Amira Arthur Beatrice Boris Carlos Charlotte Chen Clara Daniel Diego Edith Elena Emil Farid
        Fiona George Grace Hannah Henry Igor Ingrid Jasper Joan Kenji Laura Leo Lucy Malik Margaret Mina Nadia
        Noah Olga Oscar Patrick Priya Quentin Rachel Ravi Rosa Samuel Sofia Stefan Tara Thomas Uma Victor
        Walter Wendy Xavier Yusuf Zoe""",
    "city": """
        Athens Belfast Bergen Berlin Bristol Cairo Cardiff Chicago Dublin Edinburgh Florence Geneva Glasgow
        Havana Houston Istanbul Jakarta Kingston Lagos Leeds Lima Lisbon London Madrid Melbourne Montreal
        Mumbai Nairobi Oslo Oxford Paris Prague Quebec Rome Seattle Sydney Tokyo Toronto Tunis Vienna Warsaw
        York Zurich""",
    "unit": """
        days weeks months years hours minutes miles metres pounds dollars tons feet yards seconds pages
        steps""",
    "preposition": """
        above across after against along among around before behind below beneath beside between beyond by
        near opposite outside over past through towards under with without""",
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
