import js from "@eslint/js";
import reactHooks from "eslint-plugin-react-hooks";
import path from "node:path";
import ts from "typescript-eslint";

/** What the files of a layer may import besides their own folder. A feature never imports another feature. */
const layers = {
  crypto: [],
  sdk: ["crypto"],
  i18n: [],
  stubs: [],
  ui: ["i18n"],
  stores: ["sdk", "i18n"],
  features: ["stores", "sdk", "ui", "i18n"],
  gallery: ["app", "features", "stores", "sdk", "ui", "i18n"],
  app: ["features", "stores", "sdk", "ui", "i18n", "gallery"],
};

const src = path.join(import.meta.dirname, "src");

/** The folder under src/ that a file belongs to: its layer, and for a feature also its name. */
function place(file) {
  const parts = path.relative(src, file).split(path.sep);
  if (parts[0] === ".." || parts.length < 2) return null;
  return { layer: parts[0], feature: parts[0] === "features" ? parts[1] : null };
}

const layering = {
  meta: { type: "problem", schema: [], messages: { wrong: "{{from}} must not import {{to}} (see eslint.config.js)" } },
  create(context) {
    const from = place(context.filename);
    if (from === null || from.layer === "gallery") return {};
    function check(node) {
      const target = node.source?.value;
      if (typeof target !== "string" || !target.startsWith(".")) return;
      const to = place(path.resolve(path.dirname(context.filename), target, "_"));
      if (to === null) return;
      const own = to.layer === from.layer && to.feature === from.feature;
      if (own || (to.layer !== from.layer && layers[from.layer]?.includes(to.layer))) return;
      const name = (p) => (p.feature === null ? p.layer : `${p.layer}/${p.feature}`);
      context.report({ node, messageId: "wrong", data: { from: name(from), to: name(to) } });
    }
    return {
      ImportDeclaration: check,
      ImportExpression: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
    };
  },
};

const texts = new Set([
  "t",
  "formatTime",
  "formatFull",
  "formatShort",
  "formatDay",
  "formatSize",
  "formatNames",
  "formatPercent",
]);

/** A text that is made when its module loads, or kept by a memoised component, stays in the language of that moment. */
const language = {
  meta: {
    type: "problem",
    schema: [],
    messages: {
      early: "Texts are made where they are shown: the language can change after this module is loaded.",
      kept: "A memoised component calls useLanguage(), or it keeps its texts when the language changes.",
    },
  },
  create(context) {
    return {
      CallExpression(node) {
        const name = node.callee.type === "Identifier" ? node.callee.name : null;
        if (texts.has(name)) {
          const inFunction = context.sourceCode.getAncestors(node).some((above) => /Function/.test(above.type));
          if (!inFunction) context.report({ node, messageId: "early" });
        }
        if (name === "memo" && !context.sourceCode.getText(node).includes("useLanguage()"))
          context.report({ node, messageId: "kept" });
      },
    };
  },
};

export default ts.config(
  { ignores: ["dist", "node_modules"] },
  js.configs.recommended,
  ...ts.configs.recommended,
  {
    files: ["src/**/*.{ts,tsx}"],
    plugins: { conclave: { rules: { layering, language } }, "react-hooks": reactHooks },
    rules: {
      "conclave/layering": "error",
      "conclave/language": "error",
      "react-hooks/rules-of-hooks": "error",
      "react-hooks/exhaustive-deps": "error",
      "no-restricted-syntax": [
        "error",
        {
          selector: "JSXAttribute[name.name='dangerouslySetInnerHTML'], Property[key.name='dangerouslySetInnerHTML']",
          message: "Every remote string is data, never markup.",
        },
        {
          selector: "AssignmentExpression[left.property.name=/^(innerHTML|outerHTML|srcdoc)$/]",
          message: "Every remote string is data, never markup.",
        },
      ],
      "no-eval": "error",
      eqeqeq: "error",
    },
  },
  {
    files: ["src/crypto/**/*.ts", "src/sdk/**/*.ts"],
    rules: {
      "no-restricted-imports": ["error", { patterns: ["react", "react-dom", "react-dom/*", "radix-ui"] }],
      "no-restricted-globals": ["error", "document", "localStorage", "sessionStorage"],
    },
  },
  {
    rules: {
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
    },
  },
  {
    files: ["**/*.{js,mjs}"],
    languageOptions: { globals: { process: "readonly", console: "readonly", URL: "readonly", Buffer: "readonly" } },
  },
  {
    files: ["jssdk/*.mjs"],
    languageOptions: {
      globals: {
        AbortController: "readonly",
        Blob: "readonly",
        Headers: "readonly",
        TextEncoder: "readonly",
        URLSearchParams: "readonly",
        fetch: "readonly",
      },
    },
  },
);
