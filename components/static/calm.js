// While lanes run nothing on the page may draw sixty times a second: it takes from what is measured. Gradio's loader
// does so for ever and unseen, since it is taken down with its timer running.
{
  const CALM_MS = 250;
  const frame = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) =>
    document.body?.dataset.race === "running" ? -setTimeout(() => frame(draw), CALM_MS) : frame(draw);
}
