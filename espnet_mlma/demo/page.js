// Runs once. `element` and `props` belong to the transcripts; the player is Gradio's <audio>.
const player = () => document.querySelector("#sound audio");
const words = () => element.querySelectorAll(".lines .word");
let copy = null;

// The server deletes the upload after recognition, so the page plays its own copy.
window.mlmaKeepCopy = async (sound) => {
  if (copy) URL.revokeObjectURL(copy);
  copy = null;
  if (!sound) return;
  const response = await fetch(sound.url);
  copy = URL.createObjectURL(await response.blob());
  while (!player()) await new Promise(requestAnimationFrame);
  player().src = copy;
  // Shown while other uploads are recognised.
  props.value = '<p class="waiting" role="status">Waiting …</p>';
};

function playFrom(target) {
  const audio = player();
  if (!audio) return;
  audio.currentTime = Number(target.dataset.start);
  audio.play().catch(() => {
    target.title = "This browser cannot play the file's format.";
  });
}

element.addEventListener("click", (event) => {
  const target = event.target.closest(".lines [data-start]");
  // A click that ends a text selection must not start the player.
  if (target && getSelection().isCollapsed) playFrom(target);
});

element.addEventListener("keydown", (event) => {
  const target = event.target.closest(".lines .word");
  if (!target || !["Enter", " "].includes(event.key)) return;
  event.preventDefault();
  playFrom(target);
});

// Media events do not bubble, so this listener captures them.
document.addEventListener(
  "timeupdate",
  (event) => {
    if (event.target !== player()) return;
    const now = event.target.currentTime;
    for (const word of words()) {
      const { start, end } = word.dataset;
      word.classList.toggle("playing", Number(start) <= now && now < Number(end));
    }
  },
  true,
);
