// Without this name the page would not start; the layout that /docs uses needs nothing of it.
window.SwaggerUIStandalonePreset = [];
