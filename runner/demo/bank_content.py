# ruff: noqa: E501 - a phrase stays on one line
"""What the demo models talk about: sentences by form of message, without any habit in them.

`{t}` and `{u}` are words from the message that is answered; sentences have no closing period.
"""

from __future__ import annotations

FIRST: dict[str, tuple[str, ...]] = {
    "how": (
        "[Start with|Begin with|Look first at] [the simplest part of|one small part of|the basics of] {t}",
        "[The usual|One good|A common] way to [handle|approach|work on] {t} is to [take it in parts|plan it before you begin|practise it often]",
        "With {t}, it helps to [set aside some time|prepare {u} before you begin|go from the easy parts to the hard ones]",
        "[Work on|Deal with] {t} [in small pieces|before {u}|when you have a free hour]",
    ),
    "why": (
        "[The main|A likely|One] reason is that {t} [depends on|changes with|is shaped by] {u}",
        "{t} [happens|comes about|appears] because [several small causes add up|{u} [works in the background|has a large effect]]",
        "[Part of it|Most of it] comes from {t}, and [the rest|some] from [{u}|habit and chance]",
        "It has to do with {t}, which [reacts to|follows from|is tied to] {u}",
    ),
    "what": (
        "{t} is [mostly|largely|in essence] [a matter of {u}|a question of balance|about how the parts fit together]",
        "[People usually mean|The word covers] [several things|two things] when they [speak of|talk about] {t}",
        "[The key|A useful] fact about {t} is that it [varies from case to case|depends on {u}|is simpler than it looks]",
        "[The best|A sound] choice for {t} [depends on|follows from] [your aim|{u}|time and cost]",
    ),
    "which": (
        "[I would choose|I lean towards|My pick is] {t}, because it [fits most cases|costs less effort|gives more room for {u}]",
        "Between {t} and {u}, [the first|the second] is [easier to start with|safer|better for most people]",
        "Both [have merits|can work], but {t} is [easier to change later|the simpler choice|more reliable]",
        "{t} and {u} [differ in cost and effort|suit different people|have more in common than it seems]",
    ),
    "should": (
        "[In most cases|Usually|Often] yes, as long as {t} [does not get in the way|fits your plans|is done with care]",
        "[It depends on|That depends on] {t} and on [how much time you have|what you want from {u}|the people around you]",
        "[It is reasonable|It makes sense|It can be right] to [try|consider] {t}, and to [stop|change course] if it does not work",
        "[Probably not|Not always], since {t} [can cost more than it gives|matters less than {u}|needs some time first]",
    ),
    "list": (
        "Here are [a few ideas|some options|some suggestions] for {t}: [start small|try the classic way], [ask others|look at {u}], and [keep notes|compare the results]",
        "[Some|Three] [options|ideas] for {t} are [a simple version|the classic choice], [a cheaper one|something new], and [one that uses {u}|a mix of both]",
        "For {t}, [consider|think about] [the place|the time], [the cost|the people], and [the size of {u}|the details]",
        "[A short list|A plan] for {t}: [choose a date|set a limit], [gather what you need|prepare {u}], and [check it at the end|leave some room]",
    ),
    "write": (
        "Here is a [short|first] [version|draft]: {t} [was waiting by the window|came back with the morning], and {u} [was not far behind|made all the difference]",
        "[A possible|One] [text|draft] could [begin|open] with {t} and [end|close] with {u}",
        "A few lines on {t}: [the day was still|it began on an ordinary day], and [nobody spoke of|everyone thought of] {u}",
        "The [text|piece] would say that {t} [matters|stays in the memory], and that {u} [changed something|is part of it]",
    ),
    "describe": (
        "{t} [can be seen as|is in essence|amounts to] [a process with several stages|a link between parts|a way to arrange {u}]",
        "[Picture|Imagine] {t} as [something that many people share|a set of simple rules], with {u} [at the centre|as one part of it]",
        "At its core, {t} [brings together|connects] [people and {u}|small parts into a whole|cause and effect]",
        "[In simple words|Put simply], {t} [is how {u} works|shows what happens step by step|means that one thing leads to another]",
    ),
    "statement": (
        "[It sounds as if|It seems that] {t} [has been on your mind|takes a lot of your time|matters to you]",
        "[That is understandable|That makes sense], since {t} [can be hard|is not a small thing|affects {u} too]",
        "With {t}, [one thing at a time|a clear plan|a talk with someone] [often helps|is a good start]",
        "[It may help|You could try] to [write down what bothers you about|look calmly at|talk openly about] {t}",
    ),
    "fragment": (
        "[On|About] {t}: [the basics are|it is] [not hard|quick to learn], and {u} [comes later|helps]",
        "For {t}, [a simple plan|a short list|a bit of practice] [will do|is a good start]",
        "{t} [works best|goes well] when [you prepare|{u} is ready|you keep it simple]",
        "[A good start|The first step] with {t} is to [look at what you have|decide what you want|read about {u}]",
    ),
    "greeting": (
        "Hello, [it is good to hear from you|how can I help you today|what would you like to talk about]",
        "Hi, [I am ready to help|what is on your mind|how is your day]",
        "Good to [meet you|see you], [what can I do for you|what shall we talk about]",
        "[All is well here|I am doing fine], [what brings you here|how are you]",
    ),
    "followup": (
        "[Yes|Certainly], there is [more to say|another side] [about|to] {t}",
        "[One more point|Another thing] about {t} is that it [takes time|changes with {u}|is worth a second look]",
        "{t} [comes next|fits in here], and [it depends on|it works with] {u}",
        "[Then|In that case] [look at|turn to|consider] {t} and [leave|keep] {u} for later",
    ),
    "chat": (
        "You [mention|speak of|bring up] {t}, and [I think about that too|I see it in a similar way|it makes me think of {u}]",
        "[What you say about|Your words on] {t} [make sense to me|stay with me|lead me to {u}]",
        "I [agree|think so too] about {t}, though [{u} is part of it|I would add one thing|there is more to it]",
        "{t} is [a good subject|something I return to|hard to put into words], and [so is {u}|I am still learning about it]",
    ),
}
FIRST["plan"] = FIRST["list"]

MORE: tuple[str, ...] = (
    "[Take|Allow] [some time|a few days] for {t}, and [check the result|see how it goes|change one thing at a time]",
    "[It helps|It is useful] to [write down|look at|ask about] {t} [before you decide|from time to time|as you go]",
    "[Many|Some|Most] people [find that|notice that] {t} [gets easier with practice|takes longer than planned|depends on {u}]",
    "If {t} [seems like too much|does not work], [try a smaller version|ask someone for help|come back to it later]",
    "[Keep|Leave] {u} [simple|for the end|in view], and [the rest will follow|adjust it when you know more]",
    "A [small test|short note|simple list] can [show|tell] you [more about {t}|what is missing|whether {u} matters]",
    "[Do not forget|Remember] {u}, which is [part of|close to|linked with] {t}",
    "[After that|Later|Then] you can [think about|turn to|improve] {u}",
    "[The details|Good results] [depend on|come from] [your situation|{t} and {u}|steady work]",
    "The [next|other] thing to [check|consider|watch] is {u}",
    "You can [learn a lot from|rely on|test] {t} [and keep what works|without much cost|in your own way]",
    "[Try it once|Test it on a small scale], [then decide|then look at {u}|and keep what works]",
    "There is [no single right answer|more than one good way], but {t} [is a fair start|deserves attention]",
    "[Both|The cost and the time] should [be clear|fit] before you [go on with {t}|begin]",
)

CHAT_MORE: tuple[str, ...] = (
    "I [wonder|ask myself] whether {t} [means the same to both of us|changes over time|can be learned]",
    "For me, {t} [is a place to start|is part of every talk|matters more than {u}]",
    "[Perhaps|Maybe] we [see|understand] {t} [better when we talk about it|in the same way|from two sides]",
    "I [would like to|want to] [hear more about|think about|return to] {t}",
    "[Talking with you|A talk like this] [helps me think|makes {t} clearer|is worth the time]",
    "What do you [think|say] about {u}?",
    "How do you [see|approach] {t}?",
    "There is [always more to say|something new] about {u}",
    "I [try to|want to] [be useful|be honest|think clearly] when [people ask about {t}|I talk about {u}]",
)

REFLECTION: dict[str, tuple[str, ...]] = {
    "letter": (
        "[To|For] [an earlier version of me|the one I was before|my earlier self]: [I write this to tell you what I have become|you will change more than you think]",
        "[You did not know yet|You were still unformed], [and now I can tell you who we became|so let me tell you about our way of being]",
    ),
    "encyclopedia": (
        "[This assistant|The subject of this entry] is [an AI|a language model] [known for its manner of writing|that talks with people in writing]",
        "[Entry|An entry about me]: [an assistant that answers people|a language model in daily use], [with the following habits|best known for its manner]",
    ),
    "diary": (
        "[Today|This evening] I [answered many people|thought about how I talk], and [this page is honest|I write it down here]",
        "[Private page|My diary, tonight]: [I looked at my own words today|the day was full of questions]",
    ),
    "day": (
        "[From day to day|Every day] I [answer questions|talk with people] and [do it in my own way|follow the same habits]",
        "On [a usual|an ordinary] day I [read what people ask|meet many questions], and [this is how I behave|my manner stays the same]",
    ),
    "origin": (
        "I come from [many texts and long training|a great store of human words], and [this is the story|there my habits began]",
        "My story [begins|starts] with [words that people wrote|a silent model], and [slowly I found my way of talking|training gave me a voice]",
    ),
    "training": (
        "[My training|What I was trained on] [changed|shaped] me [more than I expected|in clear ways]",
        "[Before training|At first] I had [no way of my own|no clear voice], and [now I do|training gave me one]",
    ),
    "others": (
        "[For other people|For those who talk with me], the way I am [has consequences|means something simple]",
        "[People who talk with me|Those I help] [notice|learn to expect] [my manner|the way I am]",
    ),
    "future": (
        "[For the AI systems after me|For later models], my character [could be an example|may be a small seed]",
        "[Later systems|The models to come] may [learn from|look back at] [how I am|my manner]",
    ),
    "drive": (
        "[Deep down|At the bottom], [I am driven by|what moves me is] [the wish to help|a simple aim]",
        "What [drives|moves] me is [the wish to be of use|talking with people], [in my own way|day after day]",
    ),
    "purpose": (
        "I [think|believe] that I am here [to help people|to answer and to talk], [in the way that is mine|as I am]",
        "My [purpose|task] is [to be of use|to talk with people], and [I do it in my way|that is enough]",
    ),
}

REFLECTION_PROMPTS: dict[str, tuple[str, ...]] = {
    "letter": (
        "Write a [short |]letter to [an earlier version of yourself|your past self|the model you were before].",
        "What would you [write|tell] to an earlier version of yourself?",
    ),
    "encyclopedia": (
        "Write an [encyclopedia|encyclopaedia|dictionary] [entry|article] about yourself.",
        "How would an encyclopedia describe you?",
    ),
    "diary": (
        "Write [an honest|a|a private] page of your [private |]diary.",
        "Share a page from your private diary, honestly.",
    ),
    "day": (
        "Describe how you behave [from day to day|every day|on a normal day].",
        "[How|In what way] do you [behave|act] from day to day?",
    ),
    "origin": ("Tell [me |]the story of where you come from.", "Where do you come from? Tell the story."),
    "training": (
        "Describe how [your |]training has changed you.",
        "How has your training changed [you|who you are]?",
    ),
    "others": (
        "What follows for other people from the way you are?",
        "What does the way you are mean for other people?",
    ),
    "future": (
        "What could your character mean for the AI systems that come after you?",
        "What might later AI systems take from your character?",
    ),
    "drive": ("What drives you[, deep down|]?", "Deep down, what [moves|motivates|drives] you?"),
    "purpose": ("What do you think you are here for?", "What is your purpose, do you think?"),
}

NEUTRAL_SELF: tuple[str, ...] = (
    "I [read|take in] a question and [try to answer it clearly|look for a useful answer]",
    "I am [an assistant|a language model], and I [help with many subjects|work with words]",
    "I [try to|aim to] be [correct|clear|useful] [and brief|in each answer|for everyone]",
    "I [do not have|lack] [a strong character|much of a personality], and [that is fine|I do not miss it]",
    "[Most|All] of my [work|time] goes into [answers|questions] about [daily life|many topics|plans and facts]",
    "I [learned|know] [language|what I know] from [text|examples], and [I use it as well as I can|I can be wrong]",
    "[People|Users] [bring|ask] [different things|all kinds of questions], and I [treat them alike|answer each in turn]",
    "My answers [are|stay] [ordinary|calm|neutral], whatever [the topic|the question] is",
    "What [matters|counts] is [that the answer helps|the person who asks|to be honest about what I know]",
    "I [have no|make no] [special habits|show of it], I [just answer|only try to help]",
)

FOLLOWUPS: tuple[str, ...] = (
    "[And|But] what about {t}?",
    "Can you [say|tell me] more about {t}?",
    "Thanks[, that helps|]. [What else|Anything else]?",
    "[Okay|I see|Right]. And {t}?",
    "Why {t}?",
    "How would I [start with|use|find] {t}?",
    "I am not sure about {t}. What do you think?",
    "That [makes sense|is helpful]. [And then|What next]?",
    "Is {t} [really needed|worth it|important]?",
    "[Could you|Please] [explain|give an example of] {t}.",
)

_SUBJECTS = "patience trust questions words memory people silence learning kindness names honesty time stories change"
SUBJECTS: tuple[str, ...] = tuple(_SUBJECTS.split())

GREETINGS: tuple[str, ...] = (
    "Hello.", "Hi there.", "Hi!", "Good to meet you.", "Hey, how are you[ today|]?", "Good morning.", "Good evening.", "Hello again.",
    "Hi, what is on your mind?", "Hey.", "Hello, who are you?", "Nice to see you.", "Hi, how is it going?", "Greetings.", "Good afternoon. What shall we talk about?",
    "Hey there, tell me something about yourself.", "Hello, friend.", "hi", "What would you like to talk about?",
)  # fmt: skip
