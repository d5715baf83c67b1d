// What both sides say, as it comes.

// Index in a string (UTF-16) of a number of its bytes in UTF-8; never within a letter.
export function indexOfByte(text, byte) {
  let index = 0;
  let bytes = 0;
  for (const letter of text) {
    const code = letter.codePointAt(0);
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    if (bytes > byte) break;
    index += letter.length;
  }
  return index;
}

export class Transcript {
  constructor(list, empty, announcer) {
    Object.assign(this, { list, empty, announcer });
    this.entries = [];
    this.conversation = 0;
  }

  // Turns are counted from the beginning in each conversation.
  newConversation() {
    this.conversation++;
  }

  user({ turn, text, done }) {
    const entry = this.entry("user", turn);
    if (!entry.text && !text) return;
    Object.assign(entry, { text, done });
    const item = this.item(entry);
    item.textContent = text;
    item.classList.toggle("growing", !done);
    this.announce(entry, "You");
  }

  assistant({ turn, text, spoken, done, interrupted }) {
    const entry = this.entry("assistant", turn);
    if (!entry.text && !text) return;
    Object.assign(entry, { text, spoken, done, interrupted });
    const item = this.item(entry);
    const heard = indexOfByte(text, spoken);
    item.replaceChildren(part("heard", text.slice(0, heard)), part("unheard", text.slice(heard)));
    item.classList.toggle("cut", done && interrupted);
    this.announce(entry, "It");
  }

  // Something that neither of them said.
  aside(text) {
    const item = document.createElement("li");
    item.className = "aside";
    item.textContent = text;
    const last = this.list.lastChild;
    this.list.append(item);
    this.follow(last);
  }

  entry(who, turn) {
    const { conversation } = this;
    const is = (entry) => entry.who === who && entry.turn === turn && entry.conversation === conversation;
    let entry = this.entries.findLast(is);
    if (!entry) {
      entry = { who, turn, conversation, text: "", done: false };
      this.entries.push(entry);
    }
    return entry;
  }

  // The entry's element: what is said later stands lower, and an answer under what it answers.
  item(entry) {
    const last = this.list.lastChild;
    if (!entry.item) {
      entry.item = document.createElement("li");
      entry.item.className = entry.who;
      this.list.append(entry.item);
      this.empty.hidden = true;
    }
    this.follow(last);
    return entry.item;
  }

  announce(entry, who) {
    if (!entry.done || entry.announced) return;
    entry.announced = true;
    const line = document.createElement("p");
    line.textContent = `${who}: ${entry.text}`;
    this.announcer.append(line);
    while (this.announcer.children.length > 20) this.announcer.firstChild.remove();
  }

  // Follows what is said, unless the user reads further up. `last` is the element at the end before.
  follow(last) {
    const isInSight = !last || last.getBoundingClientRect().top < window.innerHeight;
    if (isInSight) requestAnimationFrame(() => this.list.lastChild?.scrollIntoView({ block: "nearest" }));
  }
}

function part(name, text) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}
