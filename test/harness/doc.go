// Package harness builds grace and the apps of the tests, runs grace, reads its log, and sends load to the app.
//
// Run builds the programs once for each test binary. Start runs one grace, which ends with its test; the tests wait for
// lines of its log, never for some time. UnderLoad runs clients that never retry, and fails the test if one request fails.
package harness
