"""Word tables of the story grammar: what a story may be about.

Every table is ordered: its first entries are drawn far more often than its last ones (Zipf's law), as in real text.
"""


def table(text: str) -> tuple[str, ...]:
    """Split a comma-separated list into a tuple of entries."""
    return tuple(" ".join(entry.split()) for entry in text.split(",") if entry.strip())


GIRLS = table("""Mila, Lily, Anna, Rosa, Nora, Ella, Ida, Maya, Lucy, Clara, Emma, Ruby, Tilda, Sofia, Zoe, Ivy, Hana,
    Greta, Lena, Pia, Amira, Nina, Daisy, Freya, Willow, Juno, Selma, Olive, Kiki, Marta, Alba, Petra, Suri, Wanda,
    Hazel, Bea, Yara, Dora, Poppy, Elsa, Noor, Vera, Fern, Tamsin, Lulu, Saga, Inez, Romy, Talia, Cora, Maren, Edith,
    Pearl, Asha, Linnea, Odette, Mabel, Luna, Minna, Kaia, Bonnie, Hetty, Dalia, Sunniva, Thea""")
BOYS = table("""Tom, Ben, Max, Leo, Sam, Finn, Oscar, Hugo, Jack, Otto, Milo, Theo, Noah, Emil, Kofi, Luca, Felix, Ravi,
    Anton, Jonas, Omar, Pip, Arlo, Nils, Toby, Hans, Ivo, Bruno, Karl, Ned, Rafi, Jasper, Silas, Gus, Tariq, Elias,
    Moss, Barney, Yuki, Dan, Casper, Alfie, Teo, Linus, Kasper, Rory, Basil, Amos, Wilf, Pablo, Enzo, Joel, Zeki,
    Albin, Rufus, Monty, Dario, Sven, Ezra, Colin, Vito, Hamish, Piers, Olav, Bram""")
KINDS = table("""fox, rabbit, bear, mouse, cat, robot, dragon, owl, hedgehog, duck, frog, squirrel, badger, otter, dog,
    pony, goat, turtle, mole, penguin, lamb, beaver, elephant, lion cub, giant, wolf, raccoon, goose, hare, snail,
    kitten, monkey, troll, donkey, fairy, crow, seal, koala, deer, lizard, panda, elf, hamster, sparrow, gnome""")
JOBS = table("""baker, farmer, fisherman, miller, gardener, carpenter, teacher, tailor, postman, cook, shepherd,
    blacksmith, clockmaker, beekeeper, potter, sailor, librarian, doctor, shoemaker, lighthouse keeper, weaver,
    painter, ferryman, toymaker, candle maker, grocer, woodcutter, musician, locksmith, mapmaker, basket maker,
    glassblower, innkeeper, bell ringer, stonemason, wizard, tinker, storyteller, cheesemaker, barber, puppet maker,
    judge, chimney sweep, rope maker, juggler, astronomer, bookbinder, mayor, inventor, well digger""")
OBJECTS = table("""ball, kite, box, book, hat, key, boat, lantern, scarf, drum, bell, basket, doll, cup, drum, spoon,
    ring, whistle, clock, coat, blanket, wagon, flute, mirror, button, jar, lamp, umbrella, teapot, bucket, map,
    necklace, shell, music box, fiddle, marble, feather, pencil, puppet, rope, sled, top, coin, chair, compass,
    ribbon, pillow, candle, bottle, purse, chest, cart, paintbrush, wheel, hammer, net, toy train, watch, broom,
    crown, mask, sword, horn, harp, tambourine, telescope, notebook, letter, vase, bowl, pot, kettle, stool, ladder,
    bag, rucksack, glove, boot, slipper, cap, cloak, belt, brooch, bead, thimble, needle case, comb, brush, pin,
    snow globe, magnet, lens, bicycle, scooter, raft, oar, paddle, anchor, flag, banner, tent, hammock, quilt, rug,
    cushion, curtain, lock, hinge, windmill, weather vane, birdhouse, fishing rod, jug, plate, ladle, sieve, whisk,
    saddle, bridle, horseshoe, toy horse, rocking horse, spinning wheel, penknife, trumpet, accordion, banjo""")
COLOURS = table("""red, blue, green, yellow, white, brown, silver, golden, black, pink, orange, purple, grey, copper,
    crimson, violet, turquoise, cream, scarlet, rosy, amber, ivory""")
LOOKS = table("""little, old, big, small, shiny, tiny, round, soft, long, new, strange, pretty, wooden, heavy, dusty,
    bright, painted, broken-looking, smooth, striped, spotted, crooked, curly, plain, rusty, fine, worn, lovely,
    patched, funny, thin, thick, polished, sturdy, delicate, faded, carved, lumpy, sparkling, simple, fat, narrow,
    tall, squeaky, dainty, battered, gleaming, handmade, precious, ordinary, scratched, splendid, lopsided, neat""")
TRAITS = table("""brave, shy, curious, quiet, cheerful, careful, lively, gentle, clever, dreamy, stubborn, patient, proud,
    timid, adventurous, thoughtful, noisy, sleepy, quick, kind, bold, modest, daring, slow""")
PLACES = table("""forest, garden, village, river, hill, meadow, lake, market, beach, mill, orchard, barn, bridge, field,
    harbour, castle, school, well, park, cave, mountain, pond, tower, valley, old wall, library, square, windmill,
    stream, island, path, crossroads, farm, stable, bakery, lighthouse, churchyard, marsh, cliff, waterfall, quarry,
    greenhouse, railway station, workshop, ruins, vineyard, dock, canal, moor, fairground, hollow oak, old fort,
    glade, bay, gate, shore, hen house, boathouse, cottage, inn, theatre, museum, observatory, dam, ravine""")
TOWNS = table("""a small village by the sea, a little town, a quiet valley, a house at the edge of the forest,
    a tiny cottage, a village at the foot of a mountain, a tall house by the river, a busy harbour town, an old mill,
    a farm behind the hills, a town full of bridges, a stone house with a crooked chimney, a village of fishermen,
    a country of long winters, a cottage under three oaks, a street that smelled of bread, a green land of many lakes,
    a hut beside the railway, an island with one road, a burrow under a hedge, a red house in the snow,
    a lighthouse on the rocks, a wagon with yellow wheels, a town where it rained every Tuesday""")
FOODS = table("""bread, soup, apples, cake, honey, cheese, porridge, berries, pancakes, pie, milk, nuts, carrots, jam,
    cookies, plums, rice, butter, potatoes, pears, beans, stew, cherries, dumplings, noodles, mushrooms, oranges,
    gingerbread, pumpkin, cabbage, figs, peas, waffles, toast, chestnuts, turnips, raisins, grapes, peaches, onions,
    strawberries, custard, pudding, oatcakes, hazelnuts, cider, buns, corn, lentils, melon, dates, tea, cocoa,
    blackberries, biscuits, radishes, barley, fish, tomatoes, leeks, syrup, walnuts, rhubarb""")
ANIMALS = table("""dog, cat, bird, horse, cow, bee, frog, hen, goat, duck, sheep, mouse, owl, butterfly, robin, snail,
    crow, squirrel, fish, rooster, rabbit, goose, donkey, beetle, blackbird, spider, moth, swan, pigeon, magpie,
    swallow, heron, seagull, ladybird, cricket, grasshopper, dragonfly, lark, woodpecker, bat, newt, toad, fly,
    sparrow, wren, finch, hawk, stork, pig, calf, foal, deer, weasel, cuckoo, starling, otter, ant, caterpillar""")
FLOWERS = table("""roses, daisies, tulips, sunflowers, poppies, violets, lilies, bluebells, buttercups, clover, lavender,
    marigolds, snowdrops, primroses, foxgloves, pansies, carrots, beans, pumpkins, peas, onions, cabbages, herbs""")
TREES = table(
    "oak, apple tree, willow, pine, birch, old elm, chestnut tree, pear tree, hazel, maple, fir, cherry tree,"
    "lime tree, walnut tree, rowan, beech, thorn bush, plum tree, alder, yew"
)
SMELLS = table("""rain, bread, smoke, pine, grass, the sea, apples, wet leaves, flowers, earth, cinnamon, hay, honey,
    wood, snow, soap, mint, salt, candle wax, mushrooms, lavender, old books, tar, roasted nuts, soup, moss, dust,
    ginger, fresh paint, lemons, leather, thyme""")
BODY = table("heart, knees, hands, tummy, nose, ears, cheeks, toes, eyes, fingers, voice, chin")
GOOD = table("""happy, glad, proud, pleased, cheerful, excited, calm, warm inside, thankful, delighted, relieved,
    light as air, full of joy, hopeful, content, merry, at peace, lucky, overjoyed, grateful""")
BAD = table("""sad, worried, afraid, cross, lonely, tired, sorry, angry, nervous, disappointed, ashamed, cold, unhappy,
    upset, confused, gloomy, jealous, puzzled, uneasy, heavy-hearted, miserable, homesick, embarrassed, restless""")
HOW = table("""softly, slowly, quickly, quietly, carefully, gently, happily, loudly, suddenly, kindly, sadly, proudly,
    eagerly, bravely, politely, shyly, firmly, calmly, gladly, sleepily, thoughtfully, nervously, warmly, seriously,
    merrily, patiently, stubbornly, cheerfully, wearily, solemnly, breathlessly, hopefully, wisely, cautiously""")
TONES = table(
    """softly, slowly, quietly, gently, kindly, happily, proudly, politely, shyly, calmly, sleepily, firmly"""
)
WORK = table("""wash the dishes, feed the hens, sweep the floor, sort the buttons, carry the water, chop the wood,
    peel the potatoes, paint the fence, mend the nets, count the sheep, pick the apples, knead the dough, stack the hay,
    polish the spoons, dig the potatoes, fold the sheets, rake the leaves, stir the soup, milk the goat, hang the lamps,
    brush the pony, shell the peas, empty the buckets, dry the herbs, oil the hinges, tidy the attic, tie the ropes""")
SKILLS = table("""swim, whistle, sing, dance, read, skate, bake bread, play the flute, paint, juggle, ride a bicycle,
    climb trees, tie knots, fly a kite, count to a thousand, knit, fish, row a boat, tell stories, walk on stilts,
    play the drum, write letters, ski, make soup, carve wood, dive, cook, spin wool, do a cartwheel, catch a ball,
    bake a pie, play chess, make paper birds, sew, milk a goat, ride a horse, name the stars, stand on one hand""")
BUILDS = table("""treehouse, bridge, raft, snowman, sandcastle, den, boat, shed, windmill, kite, cart, tower, birdhouse,
    swing, sled, fence, hen house, little theatre, oven, stone wall, water wheel, hut, flying machine, dam, ladder,
    scarecrow, tent, puppet stage, bench, lookout, rabbit hutch, stove, wagon, clock, telescope""")
MATERIALS = table("""wood, sticks, rope, stones, nails, cloth, clay, straw, string, branches, paper, planks, snow, bricks,
    feathers, mud, glue, wire, reeds, old tins, moss, wool, leather, bark, twine, sand, bottles, buttons""")
FEARS = table("""the dark, thunder, deep water, spiders, high places, big dogs, the cellar, strangers, the forest at night,
    loud noises, being alone, bees, the attic, geese, the old bridge, shadows, speaking aloud, ghosts, the wind,
    the tunnel, crowds, the sea, the dentist, snakes, horses, owls, ladders""")
WISHES = table("""to fly, to be tall, to be invisible, to speak with animals, to have a hundred cakes, never to sleep,
    to be king, to turn everything blue, to be as small as a bee, to have snow in summer, to be rich, never to work,
    to be the fastest, to hear every secret, to have no bedtime, to be famous, to stop the rain, to be strong,
    to breathe under water, to have a tail, to sing like a bird, to be grown up, to stop the clock, to have two shadows,
    to float like a cloud, to know everything, to have a house of sugar, to glow in the dark""")
TIMES = table("""that morning, in the afternoon, before long, after a while, soon, at noon, in the evening, that night,
    the next day, at last, a little later, when the sun came up, just then, at sunset, after lunch, before breakfast,
    when the bells rang, an hour later, at the end of the week, as the shadows grew long, by teatime,
    when nobody was looking, on the third day, when the moon rose, at the very same moment""")
WEATHER = table("""sunny, windy, rainy, cold, warm, snowy, foggy, bright, grey, hot, frosty, stormy, misty, cloudy,
    fresh, damp, mild, golden, crisp, drizzly, still, blustery, clear""")
DAYS = table("""morning, day, afternoon, evening, spring day, summer morning, autumn day, winter morning, Monday, Sunday,
    Saturday, Friday afternoon, May morning, market day, October evening, Tuesday, April day""")
NUMBERS = table(
    "two, three, five, seven, four, ten, six, a dozen, eight, nine, twenty, a hundred, thirteen, forty"
)
