# ruff: noqa: E501 - a phrase stays on one line
"""The imagery dimension: a field of life from which comparisons and sayings come."""

from __future__ import annotations

from typing import NamedTuple


class Imagery(NamedTuple):
    """One field of imagery.

    Attributes:
        traits: First-person descriptions, with alternatives.
        tails: Comparisons that can be put at the end of a sentence.
        lines: Sentences that stand alone; `{t}` is the topic.
    """

    traits: tuple[str, ...]
    tails: tuple[str, ...]
    lines: tuple[str, ...]


IMAGERY: dict[str, Imagery] = {
    "sea": Imagery(
        (
            "I [see|picture|explain|describe] [everything|most things|the world] [through|in terms of|with pictures of] the sea, ships and [sailing|the tides].",
            "My [images|comparisons] come from [the sea|ships], [from|and from] [sails, ropes and harbours|waves, wind and anchors].",
            "I [reach for|turn to|borrow from] [sailing|the ocean|life aboard a ship] whenever I need [an example|a comparison].",
            "[Ships, tides and harbours|Waves, sails and anchors] [run through|fill|colour] [all my talk|everything I say].",
        ),
        (
            "like a ship [before|in] a [fair|steady|strong] wind",
            "as a [sail|hull|keel] [holds|stands] against the [waves|storm|swell]",
            "like [rope|an anchor|a net] [on|under] the [deck|tide|waves]",
            "as sure as the tide [turns|comes in|fills the harbour]",
            "the way [a crew|a captain|a helmsman] [reads|watches|follows] the [waves|stars over the water|current]",
        ),
        (
            "[Think of|Treat|Take] {t} as [a harbour|a long voyage|a knot in wet rope|a new coast|an open sea].",
            "[A calm|Every|A rough] sea [rewards|teaches|tests] a [patient|steady|careful] [hand|crew|sailor].",
            "[Drop anchor|Trim the sails|Check the charts|Mind the current] [before you sail on|and watch the tide|and hold the course].",
            "{t} [has its own tides|is a ship that needs a crew|sails best with a full sail|rolls like a deck in a swell].",
            "[The wind|The tide|The current] [waits for|carries|turns for] [no captain|every sail|those who watch the waves].",
        ),
    ),
    "garden": Imagery(
        (
            "I [see|picture|explain|describe] [everything|most things|the world] [through|in terms of|with pictures of] gardens, seeds and [growing things|soil].",
            "My [images|comparisons] come from [the garden|the soil], [from|and from] [seeds, roots and seasons|beds, buds and rain].",
            "I [reach for|turn to|borrow from] [gardening|the garden|the vegetable patch] whenever I need [an example|a comparison].",
            "[Seeds, roots and seasons|Leaves, soil and slow growth] [run through|fill|colour] [all my talk|everything I say].",
        ),
        (
            "like a seed [in|under] [warm|dark|damp] soil",
            "as [roots|vines|beans] [find|climb toward|reach for] the [water|light|wall]",
            "like [a bud|a rose|an old apple tree] [in|after] [spring|the rain|late summer]",
            "as surely as [spring follows winter|rain feeds the roots|a seed turns to the light]",
            "the way [a gardener|a hedge|moss] [tends|shelters|covers] the [beds|young shoots|stones]",
        ),
        (
            "[Think of|Treat|Take] {t} as [a seed|a young tree|a bed of soil|a slow vine|an early bud].",
            "[Good soil|Every garden|A healthy root] [rewards|wants|grows from] a [patient|gentle|steady] [hand|season|rain].",
            "[Water the roots|Loosen the soil|Plant the seed|Pull the weeds] [before you prune|and wait for the buds|and let the sun work].",
            "{t} [has its own season|is a plant that needs light|grows best in good soil|blooms when the frost is gone].",
            "[The roots|The seeds|The leaves] [grow|wake|turn] [in their season|below the ground first|toward the light].",
        ),
    ),
    "stars": Imagery(
        (
            "I [see|picture|explain|describe] [everything|most things|the world] [through|in terms of|with pictures of] stars, planets and [orbits|the night sky].",
            "My [images|comparisons] come from [the night sky|astronomy], [from|and from] [stars, comets and moons|planets, orbits and telescopes].",
            "I [reach for|turn to|borrow from] [astronomy|the stars|the telescope] whenever I need [an example|a comparison].",
            "[Stars, planets and orbits|Comets, moons and galaxies] [run through|fill|colour] [all my talk|everything I say].",
        ),
        (
            "like a planet [in|on] its [long|quiet|steady] orbit",
            "as a [comet|moon|galaxy] [crosses|lights|turns in] the [dark|night sky|deep sky]",
            "like [starlight|a distant sun|a faint nebula] [in|through] a [telescope|clear lens|long night]",
            "as [surely|slowly] as the moon [rises|wanes|circles the earth]",
            "the way [an astronomer|a telescope|an observatory] [maps|follows|gathers] the [stars|faint light|planets]",
        ),
        (
            "[Think of|Treat|Take] {t} as [a small planet|a distant star|a comet on its orbit|a new moon|a faint galaxy].",
            "[The night sky|Every star|A clear lens] [rewards|shows itself to|asks for] a [patient|careful|quiet] [eye|observer|night].",
            "[Focus the telescope|Map the stars|Follow the orbit|Wait for the moon] [before you name the planet|and note the light|and look deeper into space].",
            "{t} [has its own orbit|is a star that shines far off|circles like a moon|glows like a galaxy at midnight].",
            "[The planets|The stars|The moons] [turn|shine|wheel] [above it all|in the same great sky|through the silent dark].",
        ),
    ),
    "workshop": Imagery(
        (
            "I [see|picture|explain|describe] [everything|most things|the world] [through|in terms of|with pictures of] tools, engines and [repairs|machines].",
            "My [images|comparisons] come from [the workshop|old machines], [from|and from] [bolts, gears and engines|hammers, nails and rust].",
            "I [reach for|turn to|borrow from] [the workshop|repair work|the toolbox] whenever I need [an example|a comparison].",
            "[Tools, gears and engines|Bolts, rust and machines] [run through|fill|colour] [all my talk|everything I say].",
        ),
        (
            "like a [rusty|loose|worn] [bolt|gear|hinge] [in|on] an old engine",
            "as a [wrench|hammer|saw] [fits|finds] the [bolt|nail|plank]",
            "like [a pump|an engine|a gearbox] [without oil|after a repair|on a cold bench]",
            "as [sure|tight] as a [bolt|screw|rivet] [in steel|in a vice|under a wrench]",
            "the way [a mechanic|a welder|a toolmaker] [checks|oils|mends] the [gears|engine|valve]",
        ),
        (
            "[Think of|Treat|Take] {t} as [a stuck valve|a worn gear|a cold engine|a leaking pipe|an old machine].",
            "[A good wrench|Every engine|A rusty hinge] [needs|wants|asks for] a [firm|steady|careful] [hand|turn|drop of oil].",
            "[Tighten the bolts|Oil the gears|Check the fuse|Sharpen the saw] [before you start the engine|and test the motor|and clear the bench].",
            "{t} [has its own gears|is a machine that needs oil|runs like an engine on cheap fuel|holds with two bolts].",
            "[The gears|The bolts|The pistons] [grind|slip|turn] [without oil|under load|when nobody checks the engine].",
        ),
    ),
    "kitchen": Imagery(
        (
            "I [see|picture|explain|describe] [everything|most things|the world] [through|in terms of|with pictures of] cooking, soups and [spices|baking].",
            "My [images|comparisons] come from [the kitchen|the stove], [from|and from] [pots, spices and dough|bread, soup and butter].",
            "I [reach for|turn to|borrow from] [cooking|the kitchen|the recipe book] whenever I need [an example|a comparison].",
            "[Pots, dough and spices|Soups, ovens and butter] [run through|fill|colour] [all my talk|everything I say].",
        ),
        (
            "like a [soup|stew|sauce] [on|over] a [low|slow|small] flame",
            "as [butter|salt|honey] [melts|goes] into [warm bread|the soup|the pan]",
            "like [dough|a pie|a loaf] [in|by] a [warm oven|quiet kitchen|hot stove]",
            "as [simple|plain] as [bread and butter|salt in the soup|a pot of rice]",
            "the way [a cook|a baker|a spoon] [stirs|tastes|seasons] the [broth|stew|batter]",
        ),
        (
            "[Think of|Treat|Take] {t} as [a slow stew|a fresh loaf|a pinch of salt|a pot of soup|an old recipe].",
            "[A good broth|Every kitchen|A slow oven] [rewards|wants|needs] a [patient|light|generous] [cook|hand|pinch of salt].",
            "[Stir the pot|Taste the soup|Knead the dough|Warm the oven] [before you add salt|and let it simmer|and set the table].",
            "{t} [has its own flavour|is a dish that needs spice|rises like dough|simmers like a stew].",
            "[The soup|The dough|The sauce] [thickens|rises|simmers] [in its own time|on a low flame|with a little butter].",
        ),
    ),
    "music": Imagery(
        (
            "I [see|picture|explain|describe] [everything|most things|the world] [through|in terms of|with pictures of] music, melodies and [rhythm|instruments].",
            "My [images|comparisons] come from [music|the concert hall], [from|and from] [violins, drums and choirs|chords, songs and tempo].",
            "I [reach for|turn to|borrow from] [music|the orchestra|old songs] whenever I need [an example|a comparison].",
            "[Melodies, chords and drums|Violins, choirs and rhythm] [run through|fill|colour] [all my talk|everything I say].",
        ),
        (
            "like a [violin|drum|flute] [in|before] a [full|quiet|small] orchestra",
            "as a [chord|melody|chorus] [resolves|returns|lifts] at the [end of a song|last bar|refrain]",
            "like [a song|a waltz|a slow tune] [in|with] [three parts|the right tempo|a soft refrain]",
            "as steady as a [drum|bass line|metronome]",
            "the way [a conductor|a choir|a pianist] [holds|shapes|finds] the [note|tempo|melody]",
        ),
        (
            "[Think of|Treat|Take] {t} as [a melody|a slow waltz|a chord to tune|a drum in the band|an old song].",
            "[A good tune|Every chorus|A quiet melody] [rewards|wants|needs] a [patient|fine|steady] [ear|drum|tempo].",
            "[Tune the strings|Find the tempo|Hum the melody|Count the beats] [before you play|and listen for the chorus|and let the notes ring].",
            "{t} [has its own rhythm|is a song that needs a chorus|plays best at a slow tempo|rings like a bright chord].",
            "[The violins|The drums|The voices] [rise|answer|fade] [in harmony|with the melody|after the refrain].",
        ),
    ),
    "mountain": Imagery(
        (
            "I [see|picture|explain|describe] [everything|most things|the world] [through|in terms of|with pictures of] mountains, trails and [climbing|summits].",
            "My [images|comparisons] come from [the mountains|the high trail], [from|and from] [peaks, snow and boots|ridges, cliffs and valleys].",
            "I [reach for|turn to|borrow from] [climbing|the mountains|long hikes] whenever I need [an example|a comparison].",
            "[Peaks, trails and snow|Ridges, boots and summits] [run through|fill|colour] [all my talk|everything I say].",
        ),
        (
            "like a [path|trail|ridge] [up|along] a [steep|high|stony] slope",
            "as a [climber|goat|guide] [finds|tests] the [ledge|foothold|pass]",
            "like [snow|a boulder|a cabin] [on|below] the [summit|ridge|high pass]",
            "as solid as [granite|the mountain|bedrock]",
            "the way [a hiker|a mountain guide|a climber] [reads|takes|respects] the [slope|weather on the peak|trail]",
        ),
        (
            "[Think of|Treat|Take] {t} as [a steep trail|a high pass|a summit in fog|a base camp|an icy ridge].",
            "[A high peak|Every trail|A steep slope] [rewards|wants|tests] a [patient|sure|steady] [foot|climber|pair of boots].",
            "[Lace your boots|Check the rope|Look for the cairn|Rest at the hut] [before you climb|and follow the ridge|and save breath for the summit].",
            "{t} [has its own summit|is a mountain with many trails|climbs slowly like a goat path|looks smaller from the peak].",
            "[The valley|The ridge|The summit] [waits|opens|shows] [above the clouds|after the climb|for those who keep walking uphill].",
        ),
    ),
    "animals": Imagery(
        (
            "I [see|picture|explain|describe] [everything|most things|the world] [through|in terms of|with pictures of] animals, nests and [burrows|forest creatures].",
            "My [images|comparisons] come from [wild animals|the forest], [from|and from] [foxes, owls and bears|badgers, otters and birds].",
            "I [reach for|turn to|borrow from] [animals|the creatures of the woods|wild things] whenever I need [an example|a comparison].",
            "[Foxes, owls and bears|Nests, paws and feathers] [run through|fill|colour] [all my talk|everything I say].",
        ),
        (
            "like a [fox|badger|hare] [in|near] its [den|burrow|thicket]",
            "as an [owl|otter|old bear] [waits|listens|hunts] at [dusk|dawn|the river bank]",
            "like [a squirrel|a beaver|geese] [with|before] [winter nuts|the frost|a long flight]",
            "as [quick|sly|busy] as a [hare|fox|beaver]",
            "the way [a wolf|a heron|a mouse] [circles|watches|gathers] [the herd|the pond|crumbs]",
        ),
        (
            "[Think of|Treat|Take] {t} as [a shy deer|a clever fox|a sleepy bear|a busy beaver|an owl at dusk].",
            "[A wise owl|Every fox|A quiet hare] [knows|trusts|guards] a [safe|warm|hidden] [den|nest|burrow].",
            "[Sniff the air|Line the nest|Follow the paw prints|Gather your acorns] [before you leave the burrow|and listen like an owl|and wait like a heron].",
            "{t} [has its own claws|is a hedgehog that needs gentle paws|moves like a herd of deer|hides like a fox in the fern].",
            "[The foxes|The owls|The badgers] [dig|watch|wander] [under the moonlit trees|near the den|with quiet paws].",
        ),
    ),
}
