'use strict';

// The results page and the preview, which has a part of it: one video in the place of clips, buttons in the place of
// lists of sides. All that they show is in the file: pictures are data URIs in the block #data.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const $ = (id) => document.getElementById(id);
  const FIRST = data.first || 1; // of data.sides: what the input is compared with, else the first method

  function option(value, text) {
    const made = document.createElement('option');
    made.value = value;
    made.textContent = text;
    return made;
  }

  // Tables: a click sorts by a column, blanks stay below.

  for (const table of document.querySelectorAll('table')) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector('button');
      if (button) button.addEventListener('click', () => sort(table, heads, column));
    });
  }

  function sort(table, heads, column) {
    const head = heads[column];
    // The first click shows the best on top.
    const first = head.dataset.first;
    const other = first === 'ascending' ? 'descending' : 'ascending';
    const order = head.getAttribute('aria-sort') === first ? other : first;
    heads.forEach((one) => one.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', order);
    const sign = order === 'ascending' ? 1 : -1;
    const body = table.tBodies[0];
    const key = (row) => row.cells[column].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const difference = Number(x) - Number(y);
      return sign * (Number.isNaN(difference) ? x.localeCompare(y) : difference);
    });
    body.append(...rows);
  }

  // Pictures, decoded when they are shown; the last ones are kept.

  const decoded = new Map();

  function load(uri) {
    let found = decoded.get(uri);
    if (!found) {
      const image = new Image();
      image.src = uri;
      found = image.decode().then(() => image);
      found.catch(() => decoded.delete(uri));
    }
    decoded.delete(uri); // to the end of the line
    decoded.set(uri, found);
    if (decoded.size > 16) decoded.delete(decoded.keys().next().value);
    return found;
  }

  if (data.stills && data.stills.length) compare();
  if (data.motion && data.motion.length) motion();

  // Before and after: one canvas, both sides in the same place at the same scale.

  function compare() {
    const LEVELS = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32]; // CSS pixels for a pixel of the frame
    const REACH = 24; // CSS pixels around the divider that take hold of it
    const canvas = $('picture');
    const stage = $('stage');
    const handle = $('handle');
    const count = data.sides.length;
    let at = -1; // of data.stills
    let pair = [0, FIRST]; // of data.sides, left and right; beyond them error maps
    let shown = null; // the pictures on the canvas
    let turn = 0;
    let split = 0.5;
    let beside = false;
    let zoom = null; // a number of LEVELS; null fits the frame into the stage
    let centre = null; // of the view, in pixels of the frame
    let view = null; // what was drawn last, in pixels of the canvas

    const clips = [...new Set(data.stills.map((still) => still.clip))];
    $('clip')?.append(...clips.map((clip) => option(clip, data.clips[clip])));
    for (const id of lists()) {
      const group = document.createElement('optgroup');
      group.label = 'Error maps';
      data.sides.forEach((name, k) => $(id).append(option(k, name)));
      if (data.errors) {
        data.sides.slice(0, -1).forEach((name, k) => group.append(option(count + k, `Error of ${name}`)));
        $(id).append(group);
      }
    }
    const still = () => data.stills[at];
    const nameOf = (k) => (k < count ? data.sides[k] : `Error of ${data.sides[k - count]}`);
    const uriOf = (k) => (k < count ? still().pictures[k] : still().errors[k - count]);

    function lists() {
      return ['left', 'right'].filter((id) => $(id));
    }

    function choose(left, right) {
      pair = [left, right];
      lists().forEach((id, k) => { $(id).value = pair[k]; });
    }

    function caption(k) {
      const score = k < count ? still().scores[k] : '';
      return nameOf(k) + (score ? ` · ${score}` : '');
    }

    function open(k) {
      const before = at >= 0 ? still() : null;
      at = (k + data.stills.length) % data.stills.length;
      const now = still();
      if (!before || before.clip !== now.clip) {
        const frames = $('frame');
        frames.replaceChildren();
        data.stills.forEach((one, j) => {
          if (one.clip === now.clip) frames.append(option(j, `${one.frame}${one.tag ? ` (${one.tag})` : ''}`));
        });
      }
      if (!before || before.width !== now.width || before.height !== now.height) centre = zoom = null;
      if ($('clip')) $('clip').value = now.clip;
      $('frame').value = at;
      return refresh();
    }

    async function refresh() {
      const mine = ++turn;
      const [left, right] = pair;
      canvas.setAttribute('aria-busy', 'true');
      mark();
      let pictures;
      try {
        pictures = await Promise.all([load(uriOf(left)), load(uriOf(right))]);
      } catch (error) {
        if (mine === turn) $('compare-said').textContent = 'This picture cannot be shown: the page is damaged.';
        return;
      }
      if (mine !== turn) return; // another choice was faster
      shown = pictures;
      canvas.dataset.still = at;
      canvas.dataset.left = left;
      canvas.dataset.right = right;
      canvas.removeAttribute('aria-busy');
      $('left-label').textContent = caption(left);
      $('right-label').textContent = caption(right);
      const said = `Clip ${data.clips[still().clip]}, frame ${still().frame}: ${caption(left)} on the left, ${caption(right)} on the right`;
      canvas.setAttribute('aria-label', said);
      $('compare-said').textContent = said;
      if ($('scale')) $('scale').hidden = left < count && right < count;
      draw();
    }

    // Buttons that stay down, and what belongs to a side.
    function mark() {
      for (const button of document.querySelectorAll('[aria-pressed][data-still]')) {
        button.setAttribute('aria-pressed', Number(button.dataset.still) === at);
      }
      for (const button of document.querySelectorAll('[aria-pressed][data-side]')) {
        button.setAttribute('aria-pressed', pair.includes(Number(button.dataset.side)));
      }
      for (const part of document.querySelectorAll('[data-of-side]')) {
        part.hidden = !pair.includes(Number(part.dataset.ofSide));
      }
    }

    const density = () => window.devicePixelRatio || 1;

    function fitting(pane) {
      const { width, height } = still();
      const tallest = Math.max(220, Math.min(window.innerHeight * 0.72, 800)) * density();
      const scale = Math.min(pane / width, tallest / height);
      return scale > 1 ? Math.floor(scale) : scale; // whole pixels, so that all look the same
    }

    function draw() {
      if (!shown || !stage.clientWidth) return;
      const { width, height } = still();
      const ratio = density();
      const across = Math.round(stage.clientWidth * ratio);
      const gap = beside ? Math.round(2 * ratio) : 0;
      const pane = beside ? Math.floor((across - gap) / 2) : across;
      const fit = fitting(pane);
      // Two narrow panes are short; there should be room to look around when they are zoomed.
      const least = Math.max(200 * ratio, beside ? across * 0.3 : 0);
      const down = Math.round(Math.max(height * fit, least));
      const scale = zoom === null ? fit : zoom * ratio;
      if (canvas.width !== across || canvas.height !== down) {
        canvas.width = across;
        canvas.height = down;
        canvas.style.height = `${down / ratio}px`;
      }
      centre = centre || { x: width / 2, y: height / 2 };
      centre.x = inside(centre.x, width, pane / scale);
      centre.y = inside(centre.y, height, down / scale);
      const x = Math.round(pane / 2 - centre.x * scale);
      const y = Math.round(down / 2 - centre.y * scale);
      const low = Math.max(0, x);
      const high = Math.min(pane, Math.round(x + width * scale));
      const edge = beside ? pane : Math.round(low + (high - low) * split);
      const context = canvas.getContext('2d');
      context.clearRect(0, 0, across, down);
      context.imageSmoothingEnabled = scale < 1;
      context.imageSmoothingQuality = 'high';
      const parts = [[0, edge, x], beside ? [pane + gap, across, pane + gap + x] : [edge, across, x]];
      parts.forEach(([from, to, left], k) => {
        context.save();
        context.beginPath();
        context.rect(from, 0, to - from, down);
        context.clip();
        context.drawImage(shown[k], left, y, width * scale, height * scale);
        context.restore();
      });
      view = { x, y, scale, edge, low, high, pane, gap, ratio };
      canvas.dataset.view = JSON.stringify(view);
      handle.hidden = beside;
      handle.style.left = `${edge / ratio}px`;
      const percent = Math.round(split * 100);
      handle.setAttribute('aria-valuenow', percent);
      handle.setAttribute('aria-valuetext', `${percent} % ${nameOf(pair[0])}`);
      stage.classList.toggle('zoomed', width * scale > pane + 1 || height * scale > down + 1);
      $('zoom').textContent = `${Math.round(scale / ratio * 100)} %`;
      $('out').disabled = next(-1) === undefined;
      $('in').disabled = next(1) === undefined;
    }

    // The nearest place of the view that shows as much as there is.
    function inside(place, length, seen) {
      return seen >= length ? length / 2 : Math.min(Math.max(place, seen / 2), length - seen / 2);
    }

    function next(direction) {
      const now = view.scale / view.ratio;
      const fit = fitting(view.pane) / view.ratio;
      // Nothing is smaller than what fits, unless that is more than the frame itself.
      const levels = LEVELS.filter((level) => level >= Math.min(1, fit));
      return direction > 0 ? levels.find((level) => level > now * 1.01) : levels.findLast((level) => level < now * 0.99);
    }

    // Zooms so that the pixel at a place of the canvas, in its pixels, stays there.
    function zoomTo(level, place) {
      if (level === undefined || !view) return;
      const pane = place && beside && place.x > view.pane ? place.x - view.pane - view.gap : place && place.x;
      if (place) {
        const there = { x: (pane - view.x) / view.scale, y: (place.y - view.y) / view.scale };
        const scale = level * view.ratio;
        centre = { x: there.x - (pane - view.pane / 2) / scale, y: there.y - (place.y - canvas.height / 2) / scale };
      }
      zoom = level;
      draw();
    }

    function fit() {
      zoom = centre = null;
      draw();
    }

    function pan(x, y) { // by pixels of the canvas
      centre = { x: centre.x - x / view.scale, y: centre.y - y / view.scale };
      draw();
    }

    function divide(part) {
      split = Math.min(1, Math.max(0, part));
      draw();
    }

    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: (event.clientX - box.left) * view.ratio, y: (event.clientY - box.top) * view.ratio };
    };

    let drag = null;

    function press(event) {
      if (event.button || !view) return;
      const now = place(event);
      const near = Math.abs(now.x - view.edge) < REACH * view.ratio;
      const divider = !beside && (event.currentTarget === handle || near || !stage.classList.contains('zoomed'));
      if (!divider && !stage.classList.contains('zoomed')) return;
      drag = { divider, last: now, id: event.pointerId };
      event.currentTarget.setPointerCapture(event.pointerId);
      if (divider) {
        handle.focus({ preventScroll: true });
        event.preventDefault(); // else the press takes the focus away again
        divide((now.x - view.low) / (view.high - view.low));
      }
      stage.classList.toggle('dragged', !divider);
    }

    function move(event) {
      if (!drag || event.pointerId !== drag.id) return;
      const now = place(event);
      if (drag.divider) divide((now.x - view.low) / (view.high - view.low));
      else pan(now.x - drag.last.x, now.y - drag.last.y);
      drag.last = now;
    }

    function release() {
      drag = null;
      stage.classList.remove('dragged');
    }

    for (const element of [canvas, handle]) {
      element.addEventListener('pointerdown', press);
      element.addEventListener('pointermove', move);
      element.addEventListener('pointerup', release);
      element.addEventListener('pointercancel', release);
      element.addEventListener('dblclick', (event) => zoomTo(next(1), place(event)));
    }
    stage.addEventListener('wheel', (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
      event.preventDefault();
      zoomTo(next(event.deltaY < 0 ? 1 : -1), place(event));
    }, { passive: false });

    function swap() {
      choose(pair[1], pair[0]);
      refresh();
    }

    const shared = {
      '+': () => zoomTo(next(1)), '=': () => zoomTo(next(1)), '-': () => zoomTo(next(-1)), 0: fit, x: swap,
      ',': () => open(at - 1), '.': () => open(at + 1),
    };

    function bind(element, own) {
      element.addEventListener('keydown', (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || !view) return;
        const act = own(event) || shared[event.key];
        if (!act) return;
        event.preventDefault();
        act();
      });
    }

    bind(handle, (event) => {
      const step = event.shiftKey ? 0.1 : 0.01;
      return {
        ArrowLeft: () => divide(split - step), ArrowRight: () => divide(split + step),
        ArrowDown: () => divide(split - step), ArrowUp: () => divide(split + step),
        PageDown: () => divide(split - 0.1), PageUp: () => divide(split + 0.1),
        Home: () => divide(0), End: () => divide(1),
      }[event.key];
    });
    bind(canvas, (event) => {
      const step = 40 * view.ratio;
      if (!stage.classList.contains('zoomed')) {
        const move = { ArrowLeft: -0.01, ArrowRight: 0.01 }[event.key];
        return move && !beside ? () => divide(split + move * (event.shiftKey ? 10 : 1)) : undefined;
      }
      return {
        ArrowLeft: () => pan(step, 0), ArrowRight: () => pan(-step, 0),
        ArrowUp: () => pan(0, step), ArrowDown: () => pan(0, -step),
      }[event.key];
    });

    function layout(side) {
      beside = side;
      $('slider').setAttribute('aria-pressed', !side);
      $('beside').setAttribute('aria-pressed', side);
      draw();
    }

    $('clip')?.addEventListener('change', () => {
      open(data.stills.findIndex((one) => one.clip === Number($('clip').value)));
    });
    $('frame').addEventListener('change', () => open(Number($('frame').value)));
    for (const id of lists()) {
      $(id).addEventListener('change', () => {
        pair = [Number($('left').value), Number($('right').value)];
        refresh();
      });
    }
    $('previous').addEventListener('click', () => open(at - 1));
    $('next').addEventListener('click', () => open(at + 1));
    $('swap')?.addEventListener('click', swap);
    $('in').addEventListener('click', () => zoomTo(next(1)));
    $('out').addEventListener('click', () => zoomTo(next(-1)));
    $('fit').addEventListener('click', fit);
    $('slider').addEventListener('click', () => layout(false));
    $('beside').addEventListener('click', () => layout(true));
    new ResizeObserver(draw).observe(stage);
    window.addEventListener('resize', draw);

    for (const button of document.querySelectorAll('[data-still], [data-side]')) {
      const { still: number, side } = button.dataset;
      button.addEventListener('click', () => {
        if (side !== undefined) choose(0, Number(side));
        if (number === undefined) {
          refresh();
          return;
        }
        open(Number(number));
        $('compare').scrollIntoView({ block: 'start' });
        (beside ? canvas : handle).focus({ preventScroll: true });
      });
    }
    const methods = $('extreme-method');
    if (methods) {
      const choose = () => document.querySelectorAll('.extremes').forEach((one) => {
        one.hidden = one.dataset.method !== methods.value;
      });
      methods.addEventListener('change', choose);
      choose();
    }
    choose(...pair);
    open(0);
  }

  // Clips in motion: one clock says which frame it is, and all canvases are drawn from it in one go.

  function motion() {
    const cache = new Map(); // pictures of the clip, by side
    let clip = 0;
    let at = 0; // frame, with its fraction while it plays
    let playing = false;
    let last = null;
    let screens = [];
    let turn = 0;

    const now = () => data.motion[clip];
    const count = () => now().frames.length;

    data.motion.forEach((one, k) => $('motion-clip').append(option(k, data.clips[one.clip])));
    data.sides.forEach((name, k) => {
      const label = document.createElement('label');
      const box = document.createElement('input');
      box.type = 'checkbox';
      box.value = k;
      box.checked = k === 0 || k === FIRST || k === data.sides.length - 1;
      box.addEventListener('change', setUp);
      label.append(box, name);
      $('motion-sides').append(label);
    });

    function frames(side) {
      if (!cache.has(side)) {
        const made = Promise.all(now().pictures[side].map((uri) => {
          const image = new Image();
          image.src = uri;
          return image.decode().then(() => (window.createImageBitmap ? createImageBitmap(image) : image));
        }));
        made.catch(() => cache.delete(side));
        cache.set(side, made);
      }
      return cache.get(side);
    }

    async function setUp() {
      const mine = ++turn;
      const sides = [...$('motion-sides').querySelectorAll(':checked')].map((box) => Number(box.value));
      $('screens').setAttribute('aria-busy', 'true');
      let pictures;
      try {
        pictures = await Promise.all(sides.map(frames));
      } catch (error) {
        if (mine === turn) $('screens').textContent = 'This clip cannot be shown: the page is damaged.';
        return;
      }
      if (mine !== turn) return;
      screens = sides.map((side, k) => {
        const figure = document.createElement('figure');
        const canvas = document.createElement('canvas');
        const words = document.createElement('figcaption');
        canvas.width = now().width;
        canvas.height = now().height;
        canvas.setAttribute('role', 'img');
        canvas.setAttribute('aria-label', `${data.sides[side]}, clip ${data.clips[now().clip]}`);
        words.textContent = data.sides[side];
        figure.append(words, canvas);
        return { figure, canvas, pictures: pictures[k] };
      });
      $('screens').replaceChildren(...screens.map((screen) => screen.figure));
      $('screens').removeAttribute('aria-busy');
      draw();
    }

    function draw() {
      const k = Math.floor(at);
      for (const { canvas, pictures } of screens) {
        if (canvas.dataset.frame === String(k)) continue;
        canvas.getContext('2d').drawImage(pictures[k], 0, 0);
        canvas.dataset.frame = k;
      }
      $('place').max = count() - 1;
      $('place').value = k;
      $('place').setAttribute('aria-valuetext', `frame ${now().frames[k]}`);
      $('motion-frame').textContent = `Frame ${now().frames[k]} (${k + 1} of ${count()})`;
    }

    function tick(time) {
      if (!playing) return;
      // A tab that was hidden goes on where it was.
      if (last !== null) at += Math.min(time - last, 250) / 1000 * data.fps * Number($('speed').value);
      at %= count();
      last = time;
      draw();
      requestAnimationFrame(tick);
    }

    function play(start) {
      if (start && !playing) {
        last = null;
        requestAnimationFrame(tick);
      }
      playing = start;
      if (!start) at = Math.floor(at);
      $('play').textContent = start ? 'Pause' : 'Play';
    }

    function go(k) {
      play(false);
      at = (k + count()) % count();
      draw();
    }

    $('motion-clip').addEventListener('change', () => {
      play(false);
      cache.forEach((made) => made.then((all) => all.forEach((one) => one.close && one.close()), () => {}));
      cache.clear();
      clip = Number($('motion-clip').value);
      at = 0;
      screens = [];
      setUp();
    });
    $('play').addEventListener('click', () => play(!playing));
    $('back').addEventListener('click', () => go(Math.floor(at) - 1));
    $('forth').addEventListener('click', () => go(Math.floor(at) + 1));
    $('place').addEventListener('input', () => go(Number($('place').value)));
    $('motion').addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const name = event.target.tagName;
      const act = {
        ArrowLeft: () => go(Math.floor(at) - 1), ArrowRight: () => go(Math.floor(at) + 1), ' ': () => play(!playing),
      }[event.key];
      // A list and a box have keys of their own, and a button takes the space bar itself.
      if (!act || name === 'SELECT' || (event.key === ' ' && (name === 'BUTTON' || event.target.type === 'checkbox'))) return;
      event.preventDefault();
      act();
    });
    // Decoding waits until somebody comes near.
    const near = new IntersectionObserver((seen) => {
      if (!seen.some((one) => one.isIntersecting)) return;
      near.disconnect();
      setUp();
    }, { rootMargin: '600px' });
    near.observe($('motion'));
  }
})();
