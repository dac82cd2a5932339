// The console with a keyboard. Every act is a plain form and works without this file.
"use strict";
