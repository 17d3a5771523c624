// Our nodes where another pack's stood: title, colours and folding are the artist's, and so are groups.

const TITLE = 30 // height of the bar above a node
const GAP = 20

const pair = (value, fallback) => (value ? [Number(value[0]), Number(value[1])] : fallback)

// One of our nodes as a file holds it, with these values; undefined leaves the node's own.
export function newNode(type, values) {
  const fresh = LiteGraph.createNode(type)
  for (const [name, value] of Object.entries(values)) {
    const widget = fresh.widgets?.find((each) => each.name === name)
    if (widget && value !== undefined) widget.value = value
  }
  return JSON.parse(JSON.stringify(fresh.serialize()))
}

// Gives `made` what the artist had given to `node`.
export function keepLooks(made, node, title) {
  if (title) made.title = title
  for (const key of ['color', 'bgcolor', 'shape']) if (node[key] !== undefined) made[key] = node[key]
  const { collapsed, pinned } = node.flags ?? {}
  made.flags = { ...made.flags, ...(collapsed && { collapsed }), ...(pinned && { pinned }) }
}

const rectangle = (node, [x, y] = pair(node.pos, [0, 0])) => {
  const [width, height] = pair(node.size, [200, 100])
  return { x, y: y - TITLE, width, height: height + TITLE }
}
const meet = (one, other) =>
  one.x < other.x + other.width + GAP &&
  other.x < one.x + one.width + GAP &&
  one.y < other.y + other.height + GAP &&
  other.y < one.y + one.height + GAP

const bounds = ({ bounding }) => [0, 1, 2, 3].map((index) => Number(bounding[index]))

// A node is in the groups that its middle is in.
const inside = (area, group) => {
  const [x, y] = [area.x + area.width / 2, area.y + area.height / 2]
  const [left, top, width, height] = bounds(group)
  return x >= left && x < left + width && y >= top && y < top + height
}

// The bounds of a group that has room for an area too.
function around(group, area) {
  const [left, top, width, height] = bounds(group)
  const [x, y] = [Math.min(left, area.x - GAP / 2), Math.min(top, area.y - GAP / 2)]
  const right = Math.max(left + width, area.x + area.width + GAP / 2)
  return [x, y, right - x, Math.max(top + height, area.y + area.height + GAP / 2) - y]
}

// Gives each of `made` ([node of ours, node of theirs]) a place: the first of a node of theirs stands where that stood,
// the others in the nearest free one, and in its groups. `others` are the nodes that stay.
export function layOut(made, others, groups) {
  const stand = others.map((node) => rectangle(node))
  const first = new Set(made.filter(([, node], index) => made.findIndex((each) => each[1] === node) === index))
  for (const pairing of new Set([...first, ...made])) {
    const [ours, theirs] = pairing
    const from = rectangle(theirs)
    const own = [Number(theirs.pos[0]), Number(theirs.pos[1])]
    ours.pos = first.has(pairing) ? own : nearest(ours, from, stand, groups)
    settle(ours, from, stand, groups)
  }
}

// Takes the place, and stretches the groups of what stood at `from` so that they hold it.
function settle(ours, from, stand, groups) {
  const area = rectangle(ours)
  for (const group of groups) {
    if (inside(from, group) && !inside(area, group)) group.bounding = around(group, area)
  }
  stand.push(area)
}

function nearest(ours, from, stand, groups) {
  const own = groups.filter((group) => inside(from, group))
  const { width, height } = rectangle(ours)
  let best
  for (let column = -3; column <= 3; column++) {
    for (let row = -20; row <= 40; row++) {
      const area = { x: from.x + column * (width + 2 * GAP), y: from.y + row * GAP * 2, width, height }
      if (stand.some((other) => meet(area, other))) continue
      // Below is nearest; a group rather holds it than grows, and never takes in what stood beside it.
      const away = Math.abs(column) * 400 + Math.abs(row) * GAP * (row < 0 ? 4 : 2)
      const short = own.filter((group) => !inside(area, group))
      const grown = short.map((group) => ({ group, bounding: around(group, area) }))
      const takes = ({ group, bounding }) => stand.some((other) => inside(other, { bounding }) && !inside(other, group))
      const enters = groups.some((group) => !own.includes(group) && inside(area, group))
      const cost = away + grown.length * 600 + (grown.some(takes) || enters ? 5000 : 0)
      if (!best || cost < best.cost) best = { cost, place: [area.x, area.y + TITLE] }
    }
  }
  return best?.place ?? [from.x, from.y + TITLE + from.height + GAP]
}
