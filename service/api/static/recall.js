// A recall that is under way: the page looks again by itself. Without this file there is a link.
"use strict";
(() => {
  if (document.querySelector("[data-running]")) setTimeout(() => location.reload(), 2000);
})();
