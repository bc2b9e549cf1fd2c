// Vega keeps groups in plain objects, in which a name such as `constructor` is found before it was added. With an
// invisible sign in front it is a name like any other. A reviver for JSON.parse.
window.keepApart = (_, value) => (typeof value === "string" && value in Object.prototype ? `\u200b${value}` : value);
