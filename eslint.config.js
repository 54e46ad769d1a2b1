// The page runs as it lies in server/static, so what ESLint reads here is what browsers get.

import js from '@eslint/js';
import globals from 'globals';

export default [
  { ignores: ['server/static/swagger-ui/'] }, // as its package ships it
  js.configs.recommended,
  {
    files: ['server/static/**/*.js'],
    languageOptions: { ecmaVersion: 2022, sourceType: 'module', globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      complexity: ['error', 12],
      'consistent-return': 'error',
      eqeqeq: 'error',
      'max-depth': ['error', 4],
      'max-len': ['error', { code: 120 }],
      'no-eval': 'error',
      'no-implicit-globals': 'error',
      'no-implied-eval': 'error',
      'no-param-reassign': 'error',
      'no-shadow': 'error',
      'no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      'no-use-before-define': ['error', { functions: false, classes: false, variables: false }],
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-const': 'error',
    },
  },
];
