// Small helpers for what is drawn: elements, films, lists that grow as one reads on, and the marks of what stays.

// An element: attributes by name, `class`, `text`, `on…` listeners, children after; what is empty is left away.
function h(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (value !== undefined && value !== false) element.setAttribute(name, value)
  }
  if (text !== undefined) element.textContent = text
  element.append(...children.filter((child) => child !== null && child !== undefined))
  return element
}

const byId = (id) => document.getElementById(id)

// A shot's film as one picture that plays where its card is pointed at; grey where there is none.
function film(row, frame) {
  const found = data.films[row.number]
  if (!found) return h('div', { class: 'film none', text: isShot(row) ? 'not drawn' : 'no picture' })
  const [count, width, height, content] = found
  const place = frame ?? (count - 1) >> 1
  const element = h('div', { class: 'film', 'data-frames': count })
  const at = count > 1 ? place / (count - 1) : 0
  element.style.cssText = `--count: ${count}; --at: ${at}; aspect-ratio: ${width} / ${height};`
  element.style.backgroundImage = `url(data:image/webp;base64,${content})`
  element.dataset.tall = height > width * 0.5625
  return element
}

// Some frames of a film beside each other, all unless told how many.
function frames(row, most = Infinity, few = false) {
  const count = data.films[row.number]?.[0] ?? 1
  const some = Math.max(1, Math.min(count, most))
  const at = (place) => Math.floor((count * (2 * place + 1)) / (2 * some))
  const films = Array.from({ length: some }, (_, place) => film(row, at(place)))
  return h('div', { class: few ? 'frames few' : 'frames' }, ...films)
}

// A film that fills its place and is cut where it does not fit.
const cropped = (row) => h('div', { class: 'crop' }, film(row))

// The file of a row, its folder after it; the shot's number is never cut off.
function fileTitle(row, shot = true) {
  const path = data.files[row.file]
  const folder = path.slice(0, -fileName(path).length).replace(/[\\/]$/, '')
  return h('span', { class: 'file-title', title: path },
    h('span', { class: 'file-name' }, fileName(path), folder ? h('small', { text: folder }) : null),
    shot && isOneOfMany(row) ? h('span', { class: 'number', text: `· ${row.shot}` }) : null)
}

// A list that draws some of its items at first, and more each time its end comes into sight.
function grow(parent, items, make, step) {
  parent.replaceChildren()
  let drawn = 0
  const end = h('button', { type: 'button', class: 'quiet more' })
  const more = () => {
    end.before(...items.slice(drawn, drawn + step).map(make))
    drawn = Math.min(drawn + step, items.length)
    end.textContent = `${counted(items.length - drawn, 'more')} …`.replace('mores', 'more')
    if (drawn === items.length) {
      end.remove()
      watch.disconnect()
    }
  }
  const look = (places) => places.some((place) => place.isIntersecting) && more()
  const watch = new IntersectionObserver(look, { rootMargin: '600px' })
  end.addEventListener('click', more)
  parent.append(end)
  more()
  if (end.isConnected) watch.observe(end)
}

// Everything drawn that stands for a row is marked by whether the row stays, and says why not.
function mark(root = document) {
  for (const element of root.querySelectorAll('[data-row]')) {
    const row = rows[element.dataset.row]
    element.classList.toggle('out', !stays(row))
    const reason = element.childElementCount ? element.querySelector(':scope > .reason') : null
    if (reason) reason.textContent = stays(row) ? '' : reasonOf(row)
  }
}

// A file's shots on its time line: a part for each, as wide as it is long.
function timeLine(list, make) {
  const last = Math.max(1, ...list.map((row) => row.start + row.frames))
  return h('div', { class: 'line' }, ...list.filter(isShot).map((row) => {
    const part = make(row)
    part.style.left = `${(100 * row.start) / last}%`
    part.style.width = `${(100 * row.frames) / last}%`
    part.dataset.row = row.number
    return part
  }))
}
