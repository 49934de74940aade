// What the page shows, which a search fills and orders are drawn from.

/** The reranker that is none: the first stage's order is asked for, and compared. */
export const NONE = "none";

/**
 * `first` is the first stage's order, `runs` are the rerankers'. `documents` are those that were given,
 * `wanted` is the number of results, `opened` holds the results that are open, `chosen` is the order that is
 * seen where only one fits.
 */
export const shown = {
  mode: "index", wanted: 10, first: null, runs: [], documents: [], opened: new Set(), chosen: 0,
};
