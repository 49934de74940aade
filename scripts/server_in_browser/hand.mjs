// The page in a hand: a tab of the browser that notes what the page should not do.

import assert from "node:assert/strict";

export function post(url, body) {
  const headers = { "content-type": "application/json" };
  return fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
}

/** A page that notes what it should not do. */
export class Hand {
  static async at(browser, url, options = {}) {
    const { width = 1280, height = 900, dark = false, hash = "", ready = Hand.loaded } = options;
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light" });
    const hand = new Hand();
    Object.assign(hand, { context, url, faults: [], asked: [], page: await context.newPage() });
    const { page } = hand;
    page.setDefaultTimeout(60_000);
    page.on("request", (request) => {
      hand.asked.push(request);
      if (!request.url().startsWith(`${url}/`)) hand.faults.push(`asked ${request.url()}`);
    });
    page.on("pageerror", (error) => hand.faults.push(`threw ${error.message}`));
    page.on("console", (message) => {
      // The browser itself writes a line for each answer of 400 and above.
      const own = message.text().startsWith("Failed to load resource");
      if (message.type() === "error" && !own) hand.faults.push(`console: ${message.text()}`);
    });
    await page.goto(`${url}/${hash}`);
    await page.waitForFunction(ready);
    return hand;
  }

  /** Whether the page knows the models, in the browser. */
  static loaded() {
    return document.querySelector("#model").options.length > 2;
  }

  /** Waits until no search runs. */
  async rest() {
    await this.page.waitForFunction(() => {
      const words = document.querySelector("#status").textContent;
      return !document.querySelector("#form").hasAttribute("aria-busy") && /result|failed|stopped/.test(words);
    });
  }

  async close() {
    const wide = await this.overflow();
    const broken = await this.page.evaluate(() => window.broken);
    await this.context.close();
    assert.equal(broken, undefined, "a document's HTML was run");
    assert.deepEqual(this.faults, []);
    assert.ok(wide <= 0, `${wide} pixels too wide`);
  }

  overflow() {
    return this.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  }

  ids(column) {
    return this.page.$$eval(`#column-${column} .hit`, (hits) => hits.map((hit) => hit.dataset.id));
  }

  text(selector) {
    return this.page.$eval(selector, (element) => element.innerText);
  }

  /** Waits until a part of the page says so. */
  shows(selector, words) {
    const says = ([own, source]) => new RegExp(source).test(document.querySelector(own)?.textContent);
    return this.page.waitForFunction(says, [selector, words.source]);
  }

  /** Fills in what may be folded away. */
  async fill(settings) {
    if (!(await this.page.$eval("#more", (more) => more.open))) await this.page.click("#more summary");
    for (const [id, value] of Object.entries(settings)) await this.page.fill(`#${id}`, value);
  }

  /** Asks the server what the page asked last. */
  async repeat(route) {
    const request = this.asked.findLast((own) => own.method() === "POST" && own.url().endsWith(route));
    const response = await post(this.url + route, { ...request.postDataJSON(), stream: undefined });
    assert.equal(response.status, 200, await response.clone().text());
    return response.json();
  }
}
