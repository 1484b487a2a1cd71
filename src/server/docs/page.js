// Starts Swagger UI on the API's document.
"use strict";

// Swagger UI has dark colours, and leaves it to the page when to use them.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// An operation has about ten error responses: each is one row, which opens to its examples.
const foldErrors = () => ({
  wrapComponents: {
    response: (Response, { React }) => {
      const element = React.createElement;
      return function FoldedResponse(props) {
        const [open, setOpen] = React.useState(false);
        if (!/^[45]/.test(props.code)) return element(Response, props);
        const Markdown = props.getComponent("Markdown", true);
        const row = element(
          "tr",
          { className: "error-row " + props.className, "data-code": props.code },
          element(
            "td",
            { className: "response-col_status" },
            element(
              "button",
              { type: "button", "aria-expanded": open, title: "Examples", onClick: () => setOpen(!open) },
              props.code,
            ),
          ),
          element(
            "td",
            { className: "response-col_description" },
            element(Markdown, { source: props.response.get("description") }),
          ),
        );
        return element(React.Fragment, null, row, open && element(Response, { ...props, className: "error-examples" }));
      };
    },
  },
});

const root = document.getElementById("swagger-ui");
window.ui = SwaggerUIBundle({
  domNode: root,
  url: "/openapi.json",
  deepLinking: true,
  persistAuthorization: root.dataset.persistAuthorization === "true",
  plugins: [foldErrors],
  // Swagger UI would ask another host whether the document is valid.
  validatorUrl: "none",
  requestInterceptor: (request) => {
    const authorization = request.headers && request.headers.Authorization;
    // Swagger UI adds the word, which may have been pasted with the token.
    if (authorization) request.headers.Authorization = authorization.replace(/^Bearer\s+Bearer\s+/i, "Bearer ");
    return request;
  },
});
