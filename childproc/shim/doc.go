// Package shim turns a copy of grace into an app, before anything else in the program has begun.
//
// A process started with the name grace-shim sets what can only be known after the fork, its own pid, and what must be
// done last, its user and groups; then it executes the app. It does so in its init and imports next to nothing, which
// saves two thirds of its time: of the packages whose imports are initialized, Go takes the first by import path
// (go.dev/ref/spec#Program_initialization). Package strings would be too much already: it waits for unicode, and that
// for all before it.
package shim
