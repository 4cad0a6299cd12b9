"""The plot library: what can happen in an episode, written as paraphrases.

`# name` opens a plot. `-` opens a beat and each line after it is one way to tell that beat. `-?` is a beat that may be
left out; `-bold` and `-shy` are told only when the hero has such a trait. `[a|b]` chooses, `{slot}` fills in: H is the
hero, F the friend, E an elder or stranger (he/fhe/ehe are their pronouns), the rest is bound once per episode.
"""

PLOTS = """
# lost
-
{Time}, {H} [noticed|saw|found out] that {his} {thing} was [gone|missing|not there any more].
{H} had a {thing}, and {he} [loved it|took it everywhere|kept it under {his} pillow]. {Time}, it was gone.
"Where is my {thing}?" {askH}. [It was not in its usual spot.|Nobody had seen it.|{He} had [it|had it in {his} hand] only yesterday.]
{H} reached into {his} bag for {his} {thing}, but [there was only {a_food_thing}|the bag was empty|there was a hole in it].
[A gust of wind|A cheeky magpie|A wave|Somebody] had taken {his} {thing} while {H} [was asleep|looked away|was eating {food}].
-
{He} looked [under the bed|behind the door|in the {place}|by the {tree}] and [in the {place2}|under the stairs|between the {flowers}], but found only {num} [buttons|feathers|stones|crumbs].
{F} helped {him} look. They {moved} [to|around|past] the {place}, then to the {place2}, and asked every {animal} they met.
"Think," {tagF}. "Where were you when you last had it?" "Near the {place}," {tagH}, "eating {food}."
They searched all {day}. {He} found {a_any_thing}, {a_any_thing} and half a {any_animal}'s nest, but no {thing_}.
{H} asked the {job}, who shook {ehis} head, and the {job2}, who pointed at the {place}.
-?
{feelbad}
{H} sat down [on a stone|under the {tree}|on the step] and [began to cry|put {his} chin in {his} hands|said nothing at all].
-
At last {he} saw something {colour} [in the grass|under the {tree}|behind the {place}]. It was the {thing_}! A {animal} had [made its bed in it|carried it off|been guarding it].
"Is this yours?" {askE}. It was {E_new}, and in {ehis} hand was the {thing}. {E} had found it [near the {place}|in {ehis} {any_food}|on the road].
{F} laughed and pointed. The {thing_} had been [on {H}'s head|in {his} own pocket|hanging on {his} back] all along.
A {animal} [came hopping|ran up|landed] with the {thing_} in its [beak|mouth|claws], as if it had [only borrowed it|been waiting to be asked].
-
{H} hugged the {thing_} and [promised to look after it better|gave the finder some {food}|did not let go of it until bedtime].
"[Things|Lost things] like to be looked for," {tagF}, and {H} [agreed|laughed|wrote {his} name on the {thing_}].
From then on the {thing_} [lived on a nail by the door|had its own shelf|was tied to {his} belt with a string].
# quarrel
-
{Time}, {H} and {F} both wanted the {thing}. "[It is mine|I had it first|Give it back]!" cried {Hn}. "[No, I saw it first|You always get it|Not today]!" cried {Fn}.
{F} [forgot to bring|dropped|spilled soup on] the {thing} that {H} had [lent {fhim}|made for {fhim}], and {H} was [furious|hurt|very cross].
It began with a silly thing: {F} said that {food} tasted better than {food2}, and {H} said [only a goose would think so|that was the daftest thing {he} had heard].
"You never listen!" shouted {Fn}. "And you never stop talking!" shouted {Hn}. Nobody remembers how it began; perhaps with a {thing}.
-
They pulled [at it|and pushed|and shouted] until [something tore|they both fell into the mud|a {animal} ran away in fright].
{F} {moved} [home|away] without looking back. {H} kicked a [stone|bucket] and hurt {his} toe.
They sat [back to back|at two ends of the bench|on different sides of the {place}] and did not say a word [until dark|for {num} hours|all {day}].
{H} drew a line in the dust. "This side is mine," {tagH}. "Then I will have the side with the {food}," {tagF}.
-?
{feelbad}
Alone, even {food} tasted like [paper|dust|an old sock]. Playing with {a_any_thing} was no fun [either|for one].
{E_new} saw {his} long face. "A friend is worth more than {a_any_thing}," {tagE}.
-bold
{H} was too {trait} to wait. {He} marched to {F}'s door and knocked {num} times.
"I am sorry," {tagH}, quite loudly, before {he} could change {his} mind.
-shy
{H} did not know what to say, so {he} [drew a picture|wrote a note|left some {food}] and put it on {F}'s step.
It took {H} a long time to find the words. In the end there were only [two|three]: "[I am sorry|Please come back|I miss you]."
-
{F} [looked at {fhis} feet|opened the door a crack|sniffed]. "I am sorry too," {tagF}. "[Shall we share|I was silly|Let us start again]?"
"I was on my way to say the same thing," {tagF}, and they both [laughed|cried a little|blushed].
{F} broke {fhis} {food} in half and held out [the bigger half|a piece]. That was all that was needed.
-
By evening they could not remember [what the quarrel was about|who had been right|why they had been cross].
They made a rule: [one day each|whoever shouts first must wash the dishes|no quarrels before breakfast].
# storm
-
{Time}, [black|heavy|purple] clouds [rolled over|gathered above|swallowed] the {place}. [Thunder growled|The wind howled|The first drops fell].
"Look at the sky!" cried {Fn}. It had turned [as dark as ink|yellow and strange|the colour of slate] over the {place}.
The wind [came from nowhere|woke in the night|began to push]. It took {a_any_thing}, {num} hats and the [baker's sign|washing] and threw them over the {place}.
-
"[Quick, inside|Run|Hold my hand]!" cried {Hn}. They {moved} to the {place2} [through the rain|with their coats over their heads|while branches fell].
Rain [hammered on|ran down|leaked through] the roof, and {H} put {a_any_thing} under the drip.
{H} and {F} hid [under the {tree}|under an upturned boat|below the stairs] and counted the seconds between the flash and the bang.
-?
Between two thunderclaps {H} heard [a small cry|somebody calling|a bleat]. A {animal} was [stuck|shivering|all alone] near the {place}.
There was a knock. Outside stood {E_new}, wet to the bones. "May I come in?" {askE}.
-bold
{H} tied a rope around {his} middle, told {F} to hold the end, and {moved} out into the rain.
"Somebody must [close the gate|fetch the lamp|save the {thing}]," {tagH}, and out {he} went.
-shy
{H} pulled the blanket over {his} head. "Tell me a story," {he} whispered, and {F} told one about {a_any_animal} and {a_any_thing}.
{H} was shaking {simile}, but {he} lit a candle so that others could find the way.
-
At [dawn|last] the storm grew tired. [Puddles shone|Everything dripped|A rainbow stood] over the {place}, and the air smelled of {smell}.
Then it was still. They [opened the door|crawled out] and found the world washed clean, with {a_any_thing} hanging in the {tree}.
-
Everybody came out to [mend the roofs|look for their hats|sweep up the leaves], and everybody got hot {food}.
"It was only weather," {tagF}, but {he_far} knew better.
# building
-
{H} wanted to build a {build}. "[Out of what|What for|You and whose hammer]?" {askF}. "[Out of|With] {material} and {material2}," {tagH}.
"Let us build a {build}!" {tagF} {time}. {H} [fetched|already had] the {material}, and off they went to the {place}.
There was no {build} in the whole place, and [everyone|{H}] thought that was a pity. So {H} drew a plan [in the sand|on a paper bag|with burnt wood].
-
They [carried|dragged|borrowed] {material}, {material2} and {a_any_thing} to the {place}. [It took all {day}.|{F} carried the heavy end.|A {animal} watched from the {tree}.]
{H} measured, {F} sawed, and [both hit their thumbs|nobody read the plan|the {animal} got in the way].
First they made the bottom out of {material}. Then they made the top, and it was [crooked|too heavy|the wrong way round].
-
[Crash!|Creak, crack, bump!] The {build} [fell over|leaned to one side|came down in a cloud of dust]. {feelbad}
The first {build} [sank|fell apart] as soon as a {animal} sat on it. {F} laughed until {fhe} saw {H}'s face.
-bold
"Again!" {tagH}, and rolled up {his} sleeves. {He} would not be beaten by {material}.
-shy
{H} walked around the heap {num} times, thinking. "It needs [a wider foot|{a_any_thing} in the middle|more {material2}]," {he} said at last.
-
{E_new} came by and showed them [how to tie a proper knot|why a triangle is strong|where the {material} should go].
This time they went slowly. They used {material2} where they had used {material}, and {num} more knots.
-
When it was done, the {build} was [not very straight|taller than {F}|painted {colour}], but it [stood|worked|was theirs].
They sat [in front of|beside] the finished {build} and ate {food} with dirty fingers.
"[We made that|It is the best {build} in the world]," {tagH}, and it was [true|nearly true].
# secret door
-
Behind [the stove|a curtain|the ivy|the bookshelf] in the {place}, {H} found a [little|low|round] {colour} door that [had not been there before|nobody had ever mentioned].
{H} was [chasing a {animal}|looking for {a_any_thing}] when {he} leaned on a wall of the {place}, and the wall opened.
"Have you ever seen that door?" {askH}. {F} shook {fhis} head. It had no handle, only a keyhole shaped like [a moon|a {animal}|a leaf].
-bold
{H} did not wait. {He} pushed the door with {his} shoulder and {moved} in.
"Come on!" {tagH}, already halfway through.
-shy
{H} put {his} ear to the wood first. Inside, something {sound} {how}.
"You go first," {tagH}. "No, you," {tagF}. In the end they went together, holding hands.
-
The door needed a key, and the key was [in the {thing}|under a stone|around the neck of a {animal}].
Stairs went down, {num} of them, and the air smelled of {smell}.
They had to [crawl|bend low|squeeze]. A cold wind [tickled their necks|blew out the candle], and far away something {sound}.
-
At the end was a room full of [clocks that all told a different time|jars, each with a whisper inside|{flowers} that glowed|maps of places that do not exist].
Behind it lay a garden where it was always [spring|evening|snowing], and a {animal} that could [talk|read|play the {any_object}].
In the room sat {E_new}. "I have been waiting for somebody to knock," {tagE}, and poured them some {food}.
-
They were given {a_thing} to remember it by. When they came back the next {day}, [there was only a wall|the door had gone|the keyhole was the shape of a star].
"We must not tell," {tagF}. They never did, although {H} sometimes [smelled {smell}|looked at that wall] and smiled.
# stranger
-
{Time}, {E_new} came along the road with {a_thing} on {ehis} back. {E} looked [tired|hungry|lost].
At the {place} sat {E_new}, rubbing {ehis} foot. "[Could you help me|Have you any {food}|Is it far to the {place2}]?" {askE}.
Nobody in the village knew {E_new}. People [closed their shutters|looked away|whispered], but {E} only asked for {food}.
-
"[We do not know {ehim}|Be careful]," whispered {Fn}. {H} thought about it [for a moment|as long as it takes to eat a plum].
{F} wanted to go on, for [it was late|the {food} was getting cold]. But {H} stopped.
-bold
"Lean on me," {tagH} at once, and took the {thing_} from {ehim}.
{H} {moved} right up and held out {his} hand. "I am {Hn}," {he} said. "What do you need?"
-shy
{H} could not think of anything to say, so {he} held out {his} {food} with both hands.
{H} hid behind {F} first. Then {he} saw that the stranger's shoes were full of holes, and {he} stepped out.
-
They brought {ehim} to the {place2}, gave {ehim} {food} and [dry socks|a warm bed|a place near the fire], and asked no questions.
Together they carried the {thing_} to the {place2}. It was [heavier|lighter] than it looked, and it [hummed|rattled|smelled of {smell}].
-
In the morning {E} was gone, but on the [table|doorstep] lay {a_thing2} and a note: "[For kind hands|Thank you|One good turn]."
Years later {H} was lost in a strange town, and who opened the door? It was {E}, [with {any_food} on the stove|as if {ehe} had been waiting].
"I am the {job} of the king," {tagE}, "and I was looking for one honest house." {H} did not know what to say.
{E} taught them a song, and [it made the {flowers} grow|they still sing it|nobody else knows it].
# race
-
{Time} there was to be a race from the {place} to the {place2}. The prize was {a_thing} and all the {food} that one could carry.
"I bet I am faster than you," {tagF}. "To the {place}!" {tagH}. And so the race was on.
Every year the whole village raced [in sacks|on stilts|in tubs|backwards] past the {place}. This year {H} [put {his} name down|wanted to win].
-
"Ready, steady, go!" cried {E_new}. {F} shot off {simile}, and {H} {moved} after {fhim}.
At the start {H} [tripped over {a_any_animal}|lost a shoe|ran the wrong way], and everybody laughed.
They {moved} past the {place}, past the {job} and {ehis} {animal}, and through a bed of {flowers}.
-
Halfway, {F} [stopped to eat {food}|fell into the stream|twisted {fhis} ankle]. Now {H} was in front!
A {animal} sat in the middle of the road and would not move. The others jumped over it. {H} [stopped|went around].
{H}'s {body} hurt and {his} breath came {simile}. [Only {num} more steps!|The {place2} did not come any closer.]
-bold
{H} gritted {his} teeth and ran as {he} had never run before.
-shy
{H} thought of stopping. Nobody would notice. Then {he} heard somebody call {his} name.
-
Behind {him} {F} cried out. {H} turned back and pulled {fhim} up, and they crossed the line [last, arm in arm|together].
{H} won by [a nose|a whisker|the length of a spoon]. {F} [shook {his} hand|was cross for a minute, then laughed].
Neither won. A [snail|{animal}] that nobody had noticed was sitting on the line, eating the {food}.
-
The prize was shared [in equal parts|with everybody], and it tasted better that way.
"Next year," {tagF}, "we race [on one leg|after dinner|downhill]."
# learning
-
More than anything, {H} wanted to learn to {skill}. {F} could {skill} already, and made it look easy.
"I cannot {skill}," {tagH}, "and I never will." "[Never is long|Not yet]," {tagF}.
In the {place}, {H} saw {E_new} {skill}, and {he} [stood with open mouth|forgot to go home].
-
"Will you teach me?" {askH}. {E_new} laughed. "First you must {work}," {tagE}.
The first time {he} tried to {skill}, [{he} fell on {his} nose|a {animal} ran away|{F} had to look the other way].
On Monday it went badly. On Tuesday it went worse. On Wednesday {he} [threw {his} {any_object} into the grass|wanted to give up].
-bold
{H} tried again, {num} times before breakfast. {He} had bruises on both knees and was proud of every one.
-shy
{H} practised where nobody could see {him}, behind the {place2}, with only a {animal} for company.
-?
"Do not look at your feet," {tagE}. "[Look where you want to go|Breathe|Think of {food}]."
{feelbad}
-
And then, {time}, it [happened|worked|went all by itself]. {He} could {skill}! Not [well|for long], but {he} could.
One {day} {his} hands knew [something|what to do] that {his} head did not. "{F}, look!" {tagH}.
-
{F} clapped until {fhis} hands were {colour}. "Now teach me to {skill2}," {tagF}.
Today {H} can {skill} better than anybody at the {place}, and {he} shows the little ones how to fall.
# market
-
On market day {H} went to town with {a_thing} to sell. "Do not come back without {food}," they told {him}.
{H} had {num} coins in {his} pocket, and at the market there was {a_thing} that {he} wanted [badly|more than {food}].
The market smelled of {smell} and {smell2}. Somebody sold {food}, somebody sold {a_any_animal}, and {E_new} sold {a_thing}.
-
"How much?" {askH}. "{num_cap} coins," {tagE}. "[Too much|I have only two]!" {tagH}.
"I will give you {a_thing2} for it," {tagE}. {F} pulled at {his} sleeve and shook {fhis} head.
{E_new} looked at the {thing_} from above, from below and through a lens. "Hm," {tagE}. "It is [scratched|old|not very {colour}]."
-
They [argued|talked and talked] until the {food} got cold. First {E} went down a little, then {H} went up a little.
"[And a jar of {food2} on top|And you carry it home]," {tagH}. {E} [threw up {ehis} hands|laughed out loud].
-bold
{H} turned and walked away {how}. "Wait!" cried {En}, just as {he} had hoped.
-shy
{H} said nothing at all. {He} was only too shy to speak, but {E} thought {he} was a hard bargainer.
-
They shook hands. {H} went home with {a_thing2}, which [nobody needed|turned out to be magic|made {F} laugh], and with some {food}.
On the way home {H} traded it for {a_any_thing}, that for {a_any_animal}, and that for {food}. {F} ate the {food}.
The {thing_} broke before they reached the {place}. Inside was [a gold coin|another, smaller one|a note in strange letters].
# dare
-
"I dare you to [climb the {tree}|sleep in the {place}|touch the door of the {place}|swim to the {place}]," {tagF}.
The older children said that nobody dared to go into the {place} [at night|alone|after the bells]. "{Hn} will," {tagF}, before {Hn} could stop {fhim}.
-bold
"Easy!" {tagH}. {His} knees were not so sure.
{H} was off before {F} had finished speaking.
-shy
{H} wanted to say no. {His} mouth said, "All right."
"Why should I?" {askH}. {F} had no answer, but others were looking.
-
It was [darker|higher|colder] than {he} had thought. Something {sound} above {him}, and {his} {body} went cold.
Halfway {he} looked down, which was a mistake. {His} {body} trembled {simile}.
{H} counted {his} steps. At {num} something touched {his} shoulder. It was [only a branch|a {animal}|{his} own scarf].
-
Then {he} was stuck. "{Fn}?" {he} called {how}. "I think I need help."
{He} found {E_new} there, eating {food}. "Did they dare you too?" {askE}.
-
{F} went white, fetched {a_any_thing} and climbed after {him}. "It was a stupid dare," {tagF}. "I am sorry."
"You know," {tagH} afterwards, "it is braver to say no." {F} [thought so too|kicked a pebble and nodded].
{H} came back with {a_thing} as proof. Nobody laughed at {him} again, and nobody dared anybody anything until [spring|Sunday].
# gift
-
It was {F}'s birthday, and {H} had no money for a gift. {He} looked in {his} pockets: {num} buttons and some {food}.
{H} wanted to give {F} something that nobody else could give. But what?
{E_new} brought a parcel tied with {material}. "For {Hn}," it said, "not to be opened before [Sunday|the first snow]."
-
"What do you wish for?" {askH}. "Oh, nothing," {tagF}, but {fhe} looked at the {thing} in the window.
{H} asked the {job} to let {him} {work} for {num} days. {He} got [a coin|a shilling|an old {any_object}] for it.
So {H} took {material} and {material2} and made {a_thing}. It was [a bit crooked|not like those in shops].
-?
The worst thing about a secret is [keeping it|that one's ears turn red]. {H} nearly told {num} times.
{F} had never seen {H} so busy. "Do you not want to play?" {askF}. "I have to {work}," {tagH}, and it was almost true.
-
{F} shook the parcel. It [rattled|squeaked|made no sound at all]. Then {fhe} pulled the string. It was {a_thing}!
{F} unwrapped it {how}. For a moment nobody spoke. Somewhere {a_any_animal} {sound}.
-
"It is the nicest thing I ever got," {tagF}, and {fhe} [hugged {H}|meant it|wore it to bed].
And what do you think {F} had for {H}? {a_thing2_cap}. They looked at each other and laughed.
{F} gave half of the {food} to {H}, because a birthday is [too big for one|better in company].
# illness
-
One {day} {F} did not come out to play. {fHe} lay in bed with [red spots|a fever|a sore throat] and did not even want {food}.
{H} woke up with [a hot head|a cough like a goose|{num} red spots on {his} tummy].
The {animal} of {E_new} was ill. It lay in the straw and [did not eat|only blinked].
-
"You need [rest|tea with honey|the herb that grows at the {place}]," {tagE}, and wrote it down in crooked letters.
The doctor came with a bag that smelled of {smell}. "Three spoons of this," {ehe} said, "and {num} stories a day."
-bold
{H} set off to the {place} at once, although [it rained|it was nearly night], to find the herb.
-shy
{H} sat down by the bed and read aloud, {how}, until {his} voice was gone.
-
{H} cooked some {food}. It was [burnt|too salty|a strange {colour}], but it was eaten to the last spoon.
{H} put {flowers} in a {look} jar and [a hot stone|{a_any_thing}] at the end of the bed.
All night the wind {sound} in the chimney. {H} changed the wet cloth {num} times.
-
In the morning the fever was gone. "I am hungry," {tagF}, and that was the best thing anybody had said all week.
After {num} days everything was well again, and now {H} had the cough.
Slowly, {simile}, health came back: first a smile, then an appetite, and then bad jokes.
# garden
-
{H} had [found|been given|bought] a handful of seeds. "What will they be?" {askF}. "I do not know," {tagH}.
Behind the {place} lay a patch of bare earth. {H} decided to plant {flowers} there.
{E_new} had a garden full of {flowers}, and one {day} {ehe} said that {H} might have a corner of it.
-
They dug with {a_any_thing}, found {num} worms and {a_any_thing}, and put the seeds in a row.
{H} watered them each morning, and {F} sang to them {how}, which {fhe} said was just as important.
One day passed. Two days passed. [Nothing|Only a weed] came up. "Are they asleep?" {askF}.
-bold
{H} dug one up to see what it was doing, and had to put it back.
-shy
{H} waited. {He} was good at waiting. {He} sat on the wall and listened to the grass.
-?
Then a {animal} came and ate [half of them|the first green tips|the sign]. {feelbad}
It did not rain for {num} weeks, and they carried water from the {place2} in {a_any_thing}.
-
One {day} there was something green, no bigger than [a fly|a fingernail]. {H} called everybody.
In summer the {flowers} stood [as high as the roof|in thick rows|like soldiers], and bees {sound} in them.
-
There was enough for {F}, for {E}, and for the {animal}, who [said thank you|came back every year].
They saved the seeds in {a_any_thing}, because there is always a next year.
# rescue
-
"Help!" cried a thin voice from the {place}. It was [a {animal}|a small {kind2}], [stuck in the mud|caught in a net|up in the {tree}].
{H} and {F} were on their way to the {place} when they heard [a splash|a whimper|a crack].
{F} stepped on the ice, and the ice said crack. "Do not move!" cried {Hn}.
-bold
{H} threw off {his} coat and {moved} straight toward the sound.
-shy
{H}'s legs did not want to go. {He} talked to them {how}, and one after the other they went.
-
They tied {a_any_thing} to a long pole, lay flat on their bellies, and reached out.
"Hold on to the {thing}!" {tagH}. {F} pulled {H}, {H} pulled the {thing_}, and slowly something moved.
{F} ran for help and came back with {E_new}, {num} ropes and some {food}.
-
Once it slipped. Twice it slipped. The third time [it held|it came free with a pop like a cork].
The rope [creaked|began to tear]. "One more time!" {tagF}. They pulled until they saw stars.
-
At last all were on dry ground, [wet|muddy] and laughing. "I thought it was the end," {tagF}.
They wrapped it all up in a blanket, and nobody was [scolded|cold] that night.
"How can I thank you?" came the little voice. "[Learn to swim|Come and have {food}|Stay away from the {place}]," {tagH}.
# riddle
-
On the bridge stood {E_new} and would not let them pass. "Only who solves my riddle may cross," {tagE}. "{riddle}"
{E_new} loved riddles. "{riddle}" {ehe} asked. "Answer before [the bell rings|the {food} is gone], and you get {a_thing}."
On the wall of the {place} {H} found words scratched in the stone: "{riddle}"
-
"{A_any_animal}?" {askF}. "No." "{A_any_thing}?" "No, no, no."
{H} thought with {his} eyes shut. {F} thought while eating {food}. Neither way helped.
They asked the {job2}, but {job2he} said it was a silly question. They asked a {animal}, which said nothing.
-?
{H} walked up and down {num} times. The answer was somewhere close, {simile}.
"A riddle is a door," {tagE}, "and you are pushing where you should pull."
-
Then {H} saw it. "I know!" {he} cried. "It is {answer}!"
"Could it be {answer}?" {askH} {how}. It was very quiet. Then {a_any_animal} {sound}, as if to say yes.
"It is {answer}," {tagF} with {fhis} mouth full, and was more surprised than anybody.
-
"[Right|Correct|Quite so]!" and the way was free. Now {H} tells that riddle to everyone, even to [cows|the postman].
And that is how they came by {a_thing}, which had been [hidden there|the prize] for a hundred years.
# wish
-
In the {place} {H} freed a {animal}, and it spoke. "You have one wish," it said.
{H} rubbed the {thing}, and out came [smoke|a sneeze] and then {E_new}. "What do you wish for?" {askE}.
A star fell. "Quick, make a wish!" {tagF}. {H} shut {his} eyes and wished {wish}.
-
"I wish {wish}," {tagH}. There was [a bang|a smell of {smell}|a tickle in {his} nose], and it was done.
{H} had always wanted {wish}. Now it came true, [between two spoons of {food}|before {he} could blink].
-
At first it was [wonderful|great fun]. {H} laughed and showed everybody. {F} was a little jealous.
But soon {he} could not [sleep|sit|eat {food}|find {F}] any more. {feelbad}
The {job} ran away from {him}. The {animal} barked at {him}. Even {F} kept {num} steps away.
-
"I do not want it any more!" cried {Hn}. But a wish is not {a_any_thing}; one cannot simply put it back.
Together with {F} {he} {moved} back to the {place}. "Please," {tagH}, "make me as I was."
-
It was undone, with [a pop|a sigh]. Never had plain {food} tasted so good.
"What will you wish for next time?" {askF}. "[Nothing|{food_cap}|That you come along]," {tagH}.
# lie
-
The {thing} of {E_new} was broken, and {H} had broken it. "Who did this?" {askE}. "[The wind|The {animal}|I do not know]," {tagH}.
"I have seen {a_any_animal} as big as the {place}!" {tagF}. It was not true, but everybody listened, and that felt good.
{H} had eaten all the {food}. There were crumbs on {his} chin when {he} said that {he} had not.
-
One lie needs another. Soon there were {num} of them, and {H} could not remember which came first.
The poor {animal} was shut up in the {place}, although it had done nothing. {It_looked}
That night sleep did not come. The clock said: li-ar, li-ar, li-ar.
-?
"Is something the matter?" {askF}. "No," {tagH}, and that was one more.
{feelbad}
-bold
In the morning {H} walked to the {place}, stood very straight and said it: "It was me."
-shy
{H} opened {his} mouth {num} times and shut it again. At last {he} wrote it on a piece of paper and slid it under the door.
-
{E} was silent for as long as it takes to boil an egg. "[I knew|Thank you for telling me]," {ehe} said.
Nobody shouted. "A thing can be mended," said somebody {how}, "but trust takes longer."
-
{H} had to {work} for a week, and did it gladly. The heavy feeling in {his} tummy was gone.
That evening {he} slept {simile}, and the clock only said tick and tock.
# neighbour
-
Somebody had moved into the empty house near the {place}. At night one heard [hammering|singing|a fiddle] and smelled {smell}.
A new neighbour came, {E_new}, with {num} boxes, {a_thing} and a {animal}.
-
People said {E} [ate only {food}|never slept|had a {animal} in the bath]. {H} did not know whether to believe it.
"{eHe} never says hello," {tagF}. "Have you ever said it?" {askH}. {F} had not.
-bold
{H} went over with a bowl of {food} and rang the bell {num} times.
-shy
{H} looked over the fence. On the other side, two eyes looked back. Both disappeared.
-
Then {H}'s {thing} flew over the fence. It was quiet. And then it came back, [mended|washed|with a note].
The door opened. {E} had [flour on {ehis} nose|paint in {ehis} hair]. "I was hoping that somebody would come," {ehe} said.
-
{E} could {skill}, and had been to the [end of the world|moon, nearly], and told them about it over {food2}.
It turned out that {ehe} was afraid too: of {fear}, and of new neighbours.
-
By winter there was a hole in the fence that nobody wanted to mend.
Now three of them sit on the wall in the evening and argue about {food}.
# feast
-
There was to be a great feast at the {place}, and everybody should bring something. {H} had only some {food}.
"Let us make a feast," {tagF}, "for no reason at all." {H} found that an excellent reason.
-
The {job} brought {any_food}, the {job2} brought {any_food}, and {H} and {F} were to cook the {food}.
They needed a pot as big as a bath, {num} onions, and {E_new}, who could cook.
{H} stirred, {F} tasted, and tasted, and tasted. "Is there any left?" {askH}.
-
Then the {animal} jumped on the table. Crash went the {food}, splash went the {food2}.
Somebody had mixed up the salt and the sugar. The {job} coughed; {F} turned {colour}.
An hour before the feast the oven went out, and no match would burn.
-bold
"No panic!" {tagH}, and began to give orders {simile}.
-shy
{H} wanted to hide under the table, and did. There {he} had an idea.
-
So they ate {any_food} with {any_food}, which nobody had tried before, and it was [delicious|quite good|gone in a minute].
They made a salad of what was left and called it [Surprise|{Hn}'s Delight], and everyone asked for more.
-
Afterwards there was music. {E} danced with the {job}, and {F} fell asleep with {fhis} head on a plate.
They talked about that feast for {num} years, and each year the pot grew bigger.
# map
-
In an old {thing} {H} found a map. A {colour} line went from the {place} over the {place2} to a cross.
"It is a treasure map," {tagF}. "Or a plan of the drains," {tagH}. There was only one way to find out.
-
They packed {food}, {a_any_thing} and {a_any_thing}, and left before sunrise.
{F} held the map upside down, so they came to the {place2} first and had to go back.
By the {tree} they met {E_new}. "Ah, the old map," {tagE}. "Beware of the {animal}."
-
They {moved} over the {place2} and slept under the {tree}, where something {sound} all night.
The path ended at a river. They crossed it [on a log|on the back of a cow|in a barrel], and the {food} got wet.
-bold
In the dark part of the wood {H} went first and sang, so that the wood would know who was coming.
-shy
{H} marked every tree with chalk, which {F} found silly until they got lost.
-
At the cross they dug until their hands were {colour}. They hit something hard. It was a chest with {a_thing2} in it!
Under the cross lay only a note: "[The view is the treasure. Turn around.|Too late. Try again.|Now you know the way.]" They turned around and laughed.
-
The way home was shorter, as it always is. {H} drew the {animal} into the map, to warn others.
They hid the map again, with some {food} beside it, for whoever came next.
# mending
-
With a sad little noise, the {thing} [broke in two|stopped|came apart in {his} hands]. It had belonged to {his} grandmother.
In a corner of the {place} stood {a_thing}, broken for so long that nobody knew what it was for.
{F} had stepped on {H}'s {thing}. "I did not see it!" {tagF}, close to tears.
-
"Throw it away," said the {job}. "Buy a new one," said the {job2}. {H} shook {his} head.
{H} spread the pieces on the table. There were {num}, and {he} had no idea where any of them went.
They tried {material}. They tried {material2}. It held until somebody sneezed.
-
They took it to {E_new}, who looked at it {how} and put the kettle on. "Broken things are patient," {tagE}.
{E_new} lent them {a_any_thing} and showed {H} how to hold it. "Slowly," {ehe} said. "Wood has feelings."
-?
One piece was still missing. {F} found it [in the {animal}'s bed|between two boards|in {fhis} own shoe].
-
When it was done, one could still see the crack. {H} painted it {colour}, so that everyone might.
And then it [worked|rang|turned]! Not as before: a little deeper, a little slower, but it went.
-
Ever since, people bring {him} broken things, and {H} puts the kettle on.
"It is better than new," {tagF}. "New things have no story."
# fear
-
{H} was afraid of {fear}. {He} had never told anybody, not even {F}.
Everybody knew that {H} was afraid of {fear}. {F} never laughed about it, for {fhe} was afraid of {fear2}.
-
But {time} {he} had to [fetch the {thing} from|go alone to|bring {food} to] the {place}, and there was no way around it.
Then {F} got lost near the {place}, and somebody had to look for {fhim}.
-
{H}'s {body} trembled {simile}. "One step," {he} told {himself}, "and then we shall see."
"What helps?" {askH}. "[Singing|Counting|Holding somebody's hand]," {tagE_new}, "and {food} afterwards."
{He} took {his} {thing} with {him}. It could not do anything, but it was something to hold.
-bold
{H} made {himself} as tall as {he} could and shouted, "Here I come!"
-shy
{H} whispered to it, because fear is hard of hearing: "I am going past you now."
-
And what was it, in the end? [A {animal}, more afraid than {he} was.|Only the wind and {a_any_thing}.|Nothing at all, and quite a lot of it.]
It did not go away. But it became smaller, about the size of {a_any_animal}, and {he} could walk past.
-
"Were you scared?" {askF}. "Yes," {tagH}, "all the time," and {he} [grinned|stood a bit taller].
Next time it will be easier. Not easy, but easier.
# trick
-
{F} loved tricks. {Time}, {fhe} put [a {animal}|glue|{food}] into {H}'s [shoe|bed|hat].
A sly {animal} lived near the {place} and stole {food} from everyone. {H} decided to play a trick on it.
"The moon has fallen into the {place}!" {tagF}. Half the village {moved} to look.
-
{H} did not say a word. {He} went to the {place}, fetched {a_thing} and began to plan.
They hung {a_thing} in the {tree} with {material}, so that it looked like [a ghost|a giant|the mayor].
{E_new} saw it all from {ehis} window and said nothing, for {ehe} liked a good trick.
-
The trick went wrong. Instead of {F} it was {E_new} who sat down on the {food}.
It worked better than planned: there was a scream, a crash, and a cloud of flour.
-
Everyone stood still. Then somebody began to laugh, {how} at first, and it spread {simile}.
"A good trick," {tagE}, "is one where both can laugh." Nobody was laughing yet. {H} said sorry.
-
So {H} and {F} had to {work}. But sometimes, in the middle of it, they had to giggle.
In the evening {H} found a {animal} in {his} bed, and the game was open again.
# scarce
-
That winter there was little to eat. In the cupboard were {num} {food_or}, no more.
Snow lay up to the windows, and {H} and {F} had one {any_dish} between them.
It had not rained since spring. The {place} was dry, and the whole village lived on {food}.
-
There was a knock. {E_new} stood outside with an empty {any_object}. "Have you anything to spare?" {askE}.
Under the {tree} {H} found a {animal}, thin as a stick. It looked at {his} {food}.
-
"If we share, there is not enough," {tagF}. "If we do not, there is not enough either," {tagH}.
{H} counted again. It did not get more by counting.
-bold
"Sit down," {tagH}, and put out another plate.
-shy
{H} blushed, broke {his} own piece in two, and pushed the bigger one across the table without a word.
-
They put everything in one pot: {any_food}, {any_food}, and a song. It was thin, but it was hot.
Others heard of it. The {job} came with {any_food}, and the {job2} with {any_food}, and soon the pot was full.
-
When spring came, somebody left {num} baskets of {food} at the door. There was no name on them.
Nobody got full that night, and nobody went to bed hungry.
# night visitor
-
In the middle of the night something {sound} at {H}'s window. {He} sat up, {simile}.
{H} could not sleep. The moon was round as a cheese, and from the {place} came music.
-
It was a {animal} with {a_thing} around its neck. "Come," it said, "and bring {food}."
{H} woke {F}, who grumbled, and they {moved} over the wet grass in their socks.
-
At the {place} all the animals were dancing: the {any_animal} with the {any_animal}, the {any_animal} with its own shadow.
{E_new} sat there, lighting the stars one by one with {a_any_thing}. "One is broken," {tagE}. "Can you help?"
-bold
{H} bowed and joined in at once, stepping on {num} tails.
-shy
{H} watched from behind the {tree} until a small paw took {his} hand.
-
They danced until the cock crowed. Then the meadow was empty, with only a ring in the dew.
{H} held the ladder, {F} held the {food}, and soon the sky was in order again.
-
"I had the strangest dream," {tagF} at breakfast. {H} looked at {fhis} wet socks and said nothing.
In the pocket of {his} nightshirt was {a_thing2}. So it had been true.
# work
-
{H} was to help {E_new}, who was the {job} and had too much to do. "Can you {work}?" {askE}.
{F} had to {work} and {work2}, and sighed {simile}. "I will help," {tagH}, "if you tell me a story."
-
It looked simple. But after {num} minutes {he} had {a_any_thing} on {his} foot and {food} in {his} hair.
{H} did everything twice as fast as needed, so most of it had to be done again.
-?
"Slow hands, sharp eyes," {tagE}. {H} tried it. It was boring, then it was not.
They made a game of it: whoever dropped something had to bark like a dog.
-
At noon the {animal} got out, ran through the {place}, and pulled the {thing} behind it.
Then the king's own carriage stopped outside, and out of it climbed a very fat lady who wanted {food} at once.
-bold
{H} jumped on a barrel and waved {his} arms. "This way!" {he} shouted.
-shy
{H} spoke to everyone so {how} that they all became quiet, just to hear {him}.
-
By evening all was done. {E} counted {num} coins into {his} palm, and gave {him} {a_thing} on top.
"You may come again," {tagE}, which from {ehim} was a long speech.
-
{H} fell asleep at the table, with the spoon in {his} hand.
They ate {food} on the step and watched other people hurry by.
"""
