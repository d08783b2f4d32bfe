'use strict';

// The page of a blind study. trials.js has set window.STUDY: media by opaque name, and an order of questions for each
// slot. What a name stands for is not here. Nothing is sent anywhere: answers stay in localStorage until the rater
// downloads them. The digests below are those of vqm_jax/report/trials.py.
(() => {
  const study = window.STUDY;
  if (!study) {
    document.body.textContent = 'trials.js is missing: the folder of this study is not complete.';
    return;
  }
  const $ = (id) => document.getElementById(id);
  const STORE = `vqm-study-${study.study}`;
  const PAIR = study.mode === 'pair';
  const CHOICES = PAIR
    ? [['left', 'A is better', '←', 'ArrowLeft'], ['same', 'No difference', '↓', 'ArrowDown'],
      ['right', 'B is better', '→', 'ArrowRight']]
    : ['Bad', 'Poor', 'Fair', 'Good', 'Excellent'].map((label, k) => [k + 1, label, String(k + 1), String(k + 1)]);
  const SHOWN_MS = 160; // how long a chosen button stays lit

  // Digests.

  function digest(text) {
    let value = 0xcbf29ce484222325n;
    for (const byte of new TextEncoder().encode(text)) {
      value = ((value ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
    }
    return value.toString(16).padStart(16, '0');
  }

  function slotOf(participant) {
    return Number(BigInt(`0x${digest(participant)}`) % BigInt(study.orders.length));
  }

  function orderDigest(slot) {
    return digest([study.study, slot, ...study.orders[slot].map((media) => media.join(' '))].join('\n'));
  }

  function answersDigest(participant, order, answers) {
    const lines = answers.map((a) => [a.trial, ...a.media, a.answer, a.ms, a.plays].join(' '));
    return digest([study.study, participant, order, ...lines].join('\n'));
  }

  // What is kept in this browser.

  let memory = { last: null, sessions: {} };
  let session = null;
  let lasting = true;

  function load() {
    try {
      memory = JSON.parse(localStorage.getItem(STORE)) || memory;
    } catch (error) {
      lasting = false;
    }
  }

  function keep() {
    try {
      localStorage.setItem(STORE, JSON.stringify(memory));
    } catch (error) {
      lasting = false;
    }
  }

  function open(participant) {
    const fresh = { participant, slot: slotOf(participant), started: now(), finished: null, trained: 0, answers: [] };
    session = memory.sessions[participant] || fresh;
    memory.sessions[participant] = session;
    memory.last = participant;
    keep();
  }

  function forget(participant) {
    delete memory.sessions[participant];
    memory.last = null;
    session = null;
    keep();
  }

  const now = () => new Date().toISOString();
  const total = () => study.orders[session.slot].length;
  const training = () => session.trained < study.training[session.slot].length;

  // Videos: every frame is a picture, decoded before it plays, so that both sides change in the same instant.

  const loaded = new Map();

  function video(token) {
    if (!loaded.has(token)) {
      const names = Array.from({ length: study.media[token].frames }, (_, k) => String(k).padStart(4, '0'));
      const frames = Promise.all(names.map(async (name) => {
        const image = new Image();
        image.src = `media/${token}/${name}.webp`;
        await image.decode();
        return window.createImageBitmap ? createImageBitmap(image) : image;
      }));
      frames.catch(() => loaded.delete(token)); // so that trying again loads it again
      loaded.set(token, frames);
    }
    return loaded.get(token);
  }

  function needed(media) {
    const references = PAIR ? media.map((token) => study.media[token].reference).filter(Boolean) : [];
    return [...new Set([...media, ...references])];
  }

  function release(tokens) {
    for (const [token, frames] of loaded) {
      if (!tokens.includes(token)) {
        loaded.delete(token);
        frames.then((bitmaps) => bitmaps.forEach((bitmap) => bitmap.close && bitmap.close()), () => {});
      }
    }
  }

  let shown = null; // the question on the screen

  function tick(mine, time) {
    if (shown !== mine) return; // another question has its own ticks
    requestAnimationFrame((next) => tick(mine, next));
    if (shown.last !== null && !shown.paused) shown.elapsed += Math.min(time - shown.last, 250);
    shown.last = time;
    const count = shown.videos[0].length;
    const place = Math.floor(shown.elapsed * study.fps / 1000);
    shown.plays = Math.floor(place / count);
    draw(place % count);
    if (shown.plays >= 1 && !shown.ready) ready();
  }

  function draw(k) {
    const source = shown.peek && shown.reference;
    shown.canvases.forEach((canvas, side) => {
      const frame = (source || shown.videos[side])[k];
      const key = `${source ? 'reference' : 'own'} ${k}`;
      if (canvas.dataset.frame === key) return;
      canvas.dataset.frame = key;
      canvas.getContext('2d').drawImage(frame, 0, 0);
    });
  }

  function ready() {
    shown.ready = true;
    document.querySelectorAll('#choices button').forEach((button) => { button.disabled = false; });
    status(PAIR && shown.reference ? 'Choose when you are sure; the reference helps.' : 'Choose when you are sure.');
  }

  // Screens.

  function show(name) {
    for (const id of ['welcome', 'between', 'trial', 'done']) $(id).hidden = id !== name;
    if (name !== 'trial') shown = null;
    window.scrollTo(0, 0);
  }

  const status = (text) => { $('status').textContent = text; };

  function welcome() {
    show('welcome');
    session = null;
    $('title').textContent = document.title = study.title;
    $('purpose').textContent = 'We compare methods that improve the quality of videos, and want to know what people see. '
      + (PAIR ? 'You will be shown two videos at a time and say which one is better.'
        : 'You will be shown one video at a time and say how good it is.');
    const count = Math.max(...study.orders.map((order) => order.length));
    const frames = Object.values(study.media)[0].frames;
    const minutes = Math.max(1, Math.round(count * (frames / study.fps + 5) / 60));
    const withReference = PAIR && Object.values(study.media).some((media) => media.reference);
    const lines = [
      `About ${count} questions, ${minutes} ${minutes === 1 ? 'minute' : 'minutes'}; two more at the start are for practice.`,
      'The videos repeat. You can answer once they have played to the end.',
      PAIR ? 'Answer with the buttons, or with the keys ← (A), → (B) and ↓ (no difference).'
        : 'Answer with the buttons, or with the keys 1 (bad) to 5 (excellent).',
      ...(withReference ? ['Hold R, or the button, to see the reference in both places.'] : []),
      'Space stops and starts the videos. Backspace changes the last answer.',
      'You may close the page and go on later, in the same browser.',
    ];
    $('how').replaceChildren(...lines.map((text) => Object.assign(document.createElement('li'), { textContent: text })));
    const before = memory.last && memory.sessions[memory.last];
    $('returning').hidden = !before;
    if (before) {
      const all = study.orders[before.slot].length;
      const whole = before.answers.length === all;
      $('returning-text').textContent = `Welcome back, ${before.participant}: ${before.answers.length} of ${all} questions are answered.`;
      $('continue').textContent = whole ? 'Hand in' : 'Continue';
      $('export-early').hidden = whole || !before.answers.length;
    }
    const notices = [];
    const width = Math.max(...Object.values(study.media).map((media) => media.width));
    if (window.innerWidth < (PAIR ? 2 * width + 48 : width + 32)) {
      notices.push('Your window is too narrow to show the videos at full size. A larger screen is better, if you have one.');
    }
    if (window.devicePixelRatio !== 1) notices.push('Please set the zoom of your browser to 100 % if you can.');
    if (!lasting) notices.push('This browser keeps nothing for this page: please answer all questions in one go.');
    $('screen-notice').hidden = !notices.length;
    $('screen-notice').textContent = notices.join(' ');
    (before ? $('continue') : $('participant')).focus({ preventScroll: true });
  }

  function proceed() {
    if (training()) {
      const count = study.training[session.slot].length;
      if (session.trained) question();
      else between('Practice first', `The next ${count} questions are for getting used to it. They are not recorded.`);
    } else if (session.answers.length >= total()) {
      done();
    } else if (!session.answers.length) {
      between('Now it counts', `${total()} questions follow. Take the time you need; you can pause at any time.`);
    } else {
      question();
    }
  }

  function between(title, text) {
    show('between');
    $('between-title').textContent = title;
    $('between-text').textContent = text;
    $('between-go').focus();
    const place = current();
    if (place) needed(place).forEach((token) => video(token).catch(() => {}));
  }

  function current(ahead = 0) {
    const order = training() ? study.training[session.slot] : study.orders[session.slot];
    return order[(training() ? session.trained : session.answers.length) + ahead];
  }

  async function question() {
    show('trial');
    const media = current();
    const practice = training();
    const at = practice ? session.trained : session.answers.length;
    const count = practice ? study.training[session.slot].length : total();
    $('count').textContent = `${practice ? 'Practice' : 'Question'} ${at + 1} of ${count}`;
    $('practice').hidden = !practice;
    $('bar').style.width = practice ? '0' : `${100 * at / count}%`;
    $('bar').parentElement.setAttribute('aria-valuemax', count);
    $('bar').parentElement.setAttribute('aria-valuenow', at);
    $('undo').disabled = practice || !session.answers.length;
    $('question').textContent = study.question;
    $('reference').hidden = true;
    $('play-label').textContent = 'Pause';
    choices();
    status('Loading …');
    const canvases = media.map((token, side) => {
      const canvas = document.createElement('canvas');
      canvas.width = study.media[token].width;
      canvas.height = study.media[token].height;
      canvas.setAttribute('aria-label', PAIR ? `Video ${'AB'[side]}` : 'Video');
      return canvas;
    });
    $('stage').className = PAIR ? 'stage' : 'stage single';
    $('stage').replaceChildren(...canvases.map((canvas, side) => {
      const figure = document.createElement('figure');
      figure.append(canvas);
      if (PAIR) figure.append(Object.assign(document.createElement('figcaption'), { textContent: 'AB'[side] }));
      return figure;
    }));
    scale(canvases[0]);
    const mark = shown = { media, canvases, videos: null, reference: null, last: null, elapsed: 0, plays: 0,
      paused: false, peek: false, ready: false, busy: false, began: performance.now() };
    const next = current(1);
    release([...needed(media), ...(next ? needed(next) : [])]);
    try {
      const videos = await Promise.all(media.map(video));
      const reference = PAIR && study.media[media[0]].reference;
      const frames = reference ? await video(reference) : null;
      if (shown !== mark) return; // the rater has gone elsewhere meanwhile
      Object.assign(shown, { videos, reference: frames, began: performance.now() });
    } catch (error) {
      if (shown === mark) status('A video could not be loaded. Is the folder complete? Press Space to try again.');
      mark.failed = true;
      return;
    }
    $('reference').hidden = !shown.reference;
    status('Watch to the end once …');
    requestAnimationFrame((time) => tick(mark, time));
    if (next) needed(next).forEach((token) => video(token).catch(() => {}));
  }

  function choices() {
    $('choices').replaceChildren(...CHOICES.map(([value, label, key]) => {
      const button = document.createElement('button');
      button.disabled = true;
      button.dataset.value = value;
      button.append(label, Object.assign(document.createElement('kbd'), { textContent: key }));
      button.addEventListener('click', () => choose(value));
      return button;
    }));
  }

  function scale(canvas) {
    const part = canvas.getBoundingClientRect().width / canvas.width;
    $('scale-notice').hidden = part > 0.995 || !part;
    $('scale-notice').textContent = `The videos are shown at ${Math.round(100 * part)} % of their size; a larger window shows more.`;
    return part;
  }

  function choose(value) {
    if (!shown || !shown.ready || shown.busy) return;
    shown.busy = true;
    document.querySelectorAll('#choices button').forEach((button) => {
      button.disabled = true;
      button.classList.toggle('chosen', button.dataset.value === String(value));
    });
    if (training()) {
      session.trained += 1;
    } else {
      session.answers.push({ trial: session.answers.length, media: shown.media, answer: value,
        ms: Math.round(performance.now() - shown.began), plays: shown.plays });
      if (session.answers.length >= total()) session.finished = now();
      session.screen = { width: screen.width, height: screen.height, window: [window.innerWidth, window.innerHeight],
        pixel_ratio: window.devicePixelRatio, scale: Number(scale(shown.canvases[0]).toFixed(3)) };
    }
    keep();
    setTimeout(proceed, SHOWN_MS);
  }

  function undo() {
    if (training() || !session.answers.length || (shown && shown.busy)) return;
    session.answers.pop();
    session.finished = null;
    keep();
    question();
  }

  function result() {
    const order = orderDigest(session.slot);
    const { participant, slot, started, finished, answers } = session;
    return {
      format: 'vqm_jax study answers', version: study.format, study: study.study, mode: study.mode, participant, slot,
      order, answers, started, finished, screen: session.screen || null, browser: navigator.userAgent,
      digest: answersDigest(participant, order, answers),
    };
  }

  function done() {
    show('done');
    const count = session.answers.length;
    $('done-text').textContent = (count < total() ? `${count} of ${total()} questions are answered. ` : 'That was all. ')
      + `Please download the file and send it to ${study.contact}.`;
    $('answers').value = JSON.stringify(result(), null, 1);
    $('done-status').textContent = '';
    $('download').focus();
  }

  function download() {
    const url = URL.createObjectURL(new Blob([$('answers').value + '\n'], { type: 'application/json' }));
    const safe = session.participant.replace(/[^A-Za-z0-9-]+/g, '_');
    const link = Object.assign(document.createElement('a'), { href: url, download: `answers_${study.study}_${safe}.json` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    $('done-status').textContent = `Saved as ${link.download} in your downloads.`;
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText($('answers').value);
    } catch (error) { // browsers that keep the clipboard from pages in folders
      $('answers').closest('details').open = true;
      $('answers').select();
      if (!document.execCommand('copy')) {
        $('done-status').textContent = 'Please copy the selected text yourself.';
        return;
      }
    }
    $('done-status').textContent = 'Copied.';
  }

  function toggle() {
    if (!shown) return;
    if (shown.failed) { question(); return; }
    shown.paused = !shown.paused;
    $('play-label').textContent = shown.paused ? 'Play' : 'Pause';
  }

  function peek(on) {
    if (!shown || !shown.reference || shown.peek === on) return;
    shown.peek = on;
    $('reference').classList.toggle('chosen', on);
    document.querySelectorAll('#stage figcaption').forEach((caption, side) => {
      caption.textContent = on ? 'Reference' : 'AB'[side];
    });
  }

  // Events.

  $('start-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const participant = $('participant').value.normalize('NFC').trim().replace(/\s+/g, ' ');
    if (!participant) {
      $('participant-hint').textContent = 'Please enter a participant name first.';
      $('participant').focus();
      return;
    }
    open(participant);
    proceed();
  });
  $('continue').addEventListener('click', () => { open(memory.last); proceed(); });
  $('export-early').addEventListener('click', () => { open(memory.last); done(); });
  const erase = (participant) => {
    if (window.confirm(`Delete all answers of ${participant} from this browser?`)) { forget(participant); welcome(); }
  };
  $('forget').addEventListener('click', () => erase(memory.last));
  $('done-forget').addEventListener('click', () => erase(session.participant));
  $('done-back').addEventListener('click', welcome);
  $('between-go').addEventListener('click', () => { if (!$('between').hidden) question(); });
  $('leave').addEventListener('click', () => { if (!shown || !shown.busy) welcome(); });
  $('undo').addEventListener('click', undo);
  $('play').addEventListener('click', toggle);
  $('download').addEventListener('click', download);
  $('copy').addEventListener('click', copy);
  for (const name of ['pointerdown', 'pointerup', 'pointerleave', 'pointercancel']) {
    $('reference').addEventListener(name, () => peek(name === 'pointerdown'));
  }
  $('reference').addEventListener('contextmenu', (event) => event.preventDefault());

  document.addEventListener('keydown', (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!$('between').hidden && event.key === ' ') { event.preventDefault(); question(); return; }
    if ($('trial').hidden) return;
    const choice = CHOICES.find(([, , , key]) => key === event.key);
    if (choice) { event.preventDefault(); choose(choice[0]); }
    else if (event.key === ' ') { event.preventDefault(); toggle(); }
    else if (event.key === 'Backspace') { event.preventDefault(); undo(); }
    else if (event.key === 'r' || event.key === 'R') peek(true);
  });
  document.addEventListener('keyup', (event) => {
    if (event.key === 'r' || event.key === 'R') peek(false);
    if (event.key === ' ' && !$('trial').hidden) event.preventDefault(); // or it would press the focused button, too
  });
  window.addEventListener('blur', () => peek(false));
  window.addEventListener('resize', () => { if (shown) scale(shown.canvases[0]); });

  load();
  const given = new URLSearchParams(location.hash.slice(1)).get('participant');
  if (given) $('participant').value = given;
  welcome();
})();
