// What is indexed and pasted: short texts about fleas and others, with HTML and letters of all widths in them.

export const HOSTILE = `<img src=x onerror="window.broken=1"><script>window.broken=1</script>`;
export const FILES = {
  "fleas/life.md": "# Fleas\n\n## Adults\n\n"
    + "Once it has found a host, an adult flea goes on for two to three months; without one it is dead in days.",
  "fleas/home.md": "# Where fleas live\n\n"
    + "How long must you look for the flea where you live? An adult flea does live in carpets, "
    + "where adult fleas live on.",
  "fleas/circus.md": "# The flea circus\n\n"
    + "An adult ticket to the flea circus. How long the show was: as long as the audience would live with it.",
  "fleas/eggs.md": "# Eggs of fleas\n\n"
    + "A flea's eggs hatch after two to twelve days. The larvae pupate within three weeks.",
  "fleas/hostile.md": `# Flea ${HOSTILE}\n\n`
    + `This adult flea wrote ${HOSTILE} into a document about how long to live.`,
  "animals/ticks.md": "# Ticks\n\nTicks can wait for a host for many months, and some live for years.",
  "animals/cats.md": "# Katzen\n\n"
    + "Eine Wohnungskatze wird fünfzehn Jahre alt. Größe und Süße zählen nicht. 猫は長生きです 🐈.",
  "animals/dogs.md": "# Dogs\n\n"
    + "Small dogs live longer than large ones: a terrier for fifteen years, a mastiff for eight.",
  "animals/bees.md": "# Bees\n\nA worker bee lives for six weeks in summer and for half a year in winter.",
  "animals/mayflies.md": "# Mayflies\n\n"
    + "An adult mayfly lives for a day, after a year or two as a nymph in the water.",
  "houses/carpets.md": "# Carpets\n\nVacuum carpets twice a week and take the bag out of the house.",
  "houses/rent.md": "# Rent\n\nAdults who live in a flat for long pay less than those who have just moved in.",
};
// Longer than a model reads at once, and letters of one to four bytes before the answer.
export const LONG = "Zürich häuft Gemälde, 紫藤 rankt am Gemäuer 🏛, und im Föhn glänzen Türme. ".repeat(50)
  + "An adult flea lives for two to three months on its host. "
  + "Die Straßenbahn fährt nächtlich über die Brücke. ".repeat(30);
