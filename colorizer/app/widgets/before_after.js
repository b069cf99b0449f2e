const STEP = 0.02 // An arrow key moves by this share of a side, and with Shift by a fifth of it.
const inside = (value) => Math.min(Math.max(value, 0), 1)
const percent = (value) => Math.round(100 * value)

export default function ({ data, parentElement, setTriggerValue }) {
  const find = (selector) => parentElement.querySelector(selector)
  const [frame, range, pad, said] = [".frame", "input", ".pad", ".said"].map(find)
  frame.style.setProperty("--ratio", data.ratio)
  for (const [index, side] of ["before", "after"].entries()) {
    const image = find("." + side)
    const [source, alt, label] = data[side]
    image.alt = alt
    if (image.src !== source) image.src = source
    parentElement.querySelectorAll(".label")[index].textContent = label
  }
  range.setAttribute("aria-label", data.label)
  range.oninput = () => {
    frame.style.setProperty("--at", range.value + "%")
    range.setAttribute("aria-valuetext", range.value + "% before, " + (100 - range.value) + "% after")
  }
  range.oninput()
  frame.classList.toggle("asking", data.asking)
  pad.hidden = !data.asking
  pad.setAttribute("aria-label", data.pad)
  if (!data.asking) return pad.replaceChildren()

  const points = JSON.parse(data.points)
  let place = JSON.parse(data.place)
  const cross = document.createElement("span")
  cross.className = "cross"
  const showCross = () => {
    cross.hidden = !place
    if (place) [cross.style.left, cross.style.top] = place.map((value) => 100 * value + "%")
  }
  const at = (event) => {
    const box = pad.getBoundingClientRect()
    return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)]
  }
  const ask = () => setTriggerValue("asked", place)
  const send = () => setTriggerValue("moved", points)
  const draw = (point, index) => {
    const dot = document.createElement("button")
    dot.type = "button"
    dot.className = "point"
    dot.style.background = point.color
    dot.setAttribute("aria-label", `Hint ${index + 1}, ${point.color}. Arrow keys move it, Delete removes it.`)
    const put = () => ([dot.style.left, dot.style.top] = [100 * point.x + "%", 100 * point.y + "%"])
    put()
    dot.onpointerdown = (event) => {
      dot.setPointerCapture(event.pointerId)
      const begun = at(event)
      dot.onpointermove = (moved) => {
        ;[point.x, point.y] = at(moved)
        put()
      }
      dot.onpointercancel = () => (dot.onpointermove = dot.onpointerup = null)
      dot.onpointerup = (ended) => {
        dot.onpointermove = dot.onpointerup = null
        const [x, y] = at(ended)
        if (Math.hypot(x - begun[0], y - begun[1]) > 0.005) return send()
        place = [point.x, point.y]
        showCross()
        ask()
      }
    }
    dot.onclick = (event) => event.stopPropagation()
    dot.onkeydown = (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
      if (event.key === "Delete" || event.key === "Backspace") points.splice(index, 1)
      else if (moves) [point.x, point.y] = [inside(point.x + STEP * moves[0]), inside(point.y + STEP * moves[1])]
      else return
      event.preventDefault()
      event.stopPropagation()
      send()
    }
    return dot
  }
  // The keyboard stays on the hint that it moves, although all are drawn anew.
  const focused = [...pad.children].indexOf(pad.getRootNode().activeElement)
  pad.replaceChildren(...points.map(draw), cross)
  if (focused >= 0) (pad.children[focused].className === "point" ? pad.children[focused] : pad).focus()
  showCross()
  pad.onclick = (event) => {
    place = at(event)
    showCross()
    ask()
  }
  pad.onkeydown = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault()
      return setTriggerValue("undo", Date.now())
    }
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
    if (moves) {
      const step = event.shiftKey ? STEP / 5 : STEP
      const from = place ?? [0.5, 0.5]
      place = from.map((value, axis) => inside(value + step * moves[axis]))
      showCross()
      said.textContent = `${percent(place[0])} percent from the left, ${percent(place[1])} percent from the top`
    } else if (event.key === "Enter" || event.key === " ") {
      place = place ?? [0.5, 0.5]
      showCross()
      ask()
    } else if (event.key === "Escape") pad.blur()
    else return
    event.preventDefault()
  }
}
