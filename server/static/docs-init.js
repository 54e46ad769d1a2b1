// Starts Swagger UI, which lies in swagger-ui/ as its package ships it, on our own openapi.json.

/** @typedef {(options: Record<string, unknown>) => unknown} SwaggerUIBundle */

const dark = matchMedia('(prefers-color-scheme: dark)');
const followScheme = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', followScheme);
followScheme();

/** @type {Window & {SwaggerUIBundle?: SwaggerUIBundle}} */ (window).SwaggerUIBundle?.({
  url: 'openapi.json',
  dom_id: '#swagger-ui',
  deepLinking: true, // #/jobs/upload_upload_post leads to the endpoint
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // nothing is asked of another origin
});
