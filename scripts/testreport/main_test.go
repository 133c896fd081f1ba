package main

import (
	"strings"
	"testing"
)

const (
	passing = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: noise\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.003s\n"}
{"Action":"pass","Package":"p"}
`
	failing = `{"Action":"output","Package":"f","Test":"TestA","Output":"    a_test.go:3: noise\n"}
{"Action":"pass","Package":"f","Test":"TestA"}
{"Action":"output","Package":"f","Test":"TestB","Output":"    a_test.go:9: why\n"}
{"Action":"fail","Package":"f","Test":"TestB"}
{"Action":"output","Package":"f","Test":"TestA","Output":"WARNING: DATA RACE\n"}
{"Action":"output","Package":"f","Output":"FAIL\tf\t0.003s\n"}
{"Action":"fail","Package":"f"}
`
	skipping = `{"Action":"output","Package":"s","Test":"TestA","Output":"    a_test.go:3: no nginx: not found\n"}
{"Action":"output","Package":"s","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"s","Test":"TestA"}
{"Action":"output","Package":"s","Output":"ok  \ts\t0.003s\n"}
{"Action":"pass","Package":"s"}
`
	empty = `{"Action":"output","Package":"e","Output":"?   \te\t[no test files]\n"}
{"Action":"skip","Package":"e"}
`
	unbuilt = `{"ImportPath":"u [u.test]","Action":"build-output","Output":"u_test.go:3:33: too many return values\n"}
{"Action":"output","Package":"u","Output":"FAIL\tu [build failed]\n"}
{"Action":"fail","Package":"u"}
`
	recipes = `{"Action":"pass","Package":"x/docs/recipes","Test":"TestPages/nginx"}
{"Action":"pass","Package":"x/docs/recipes","Test":"TestPages/apache2/quick"}
{"Action":"pass","Package":"x/docs/recipes","Test":"TestLinks/none"}
{"Action":"pass","Package":"x/docs/recipes","Test":"TestPages"}
{"Action":"output","Package":"x/docs/recipes","Output":"ok  \tx/docs/recipes\t1s\n"}
{"Action":"pass","Package":"x/docs/recipes"}
`
	cut = `{"Action":"output","Package":"c","Test":"TestA","Output":"    a_test.go:3: so far\n"}
`
)

func TestReport(t *testing.T) {
	for name, c := range map[string]struct {
		in, out string
		well    bool
	}{
		"passing":  {passing, "ok  \tp\t0.003s\nok  \t1 packages, 0 failed; 1 tests passed, 0 skipped\n", true},
		"empty":    {passing + empty, "ok  \tp\t0.003s\nok  \t1 packages, 0 failed; 1 tests passed, 0 skipped\n", true},
		"failing":  {failing, "    a_test.go:9: why\nWARNING: DATA RACE\nFAIL\tf\t0.003s\nfailed TestB\nfailed     a_test.go:9: why\nFAIL\t1 packages, 1 failed; 1 tests passed, 0 skipped\n", false},
		"skipping": {skipping, "FAIL\ts\tran no test\nskipped s TestA: a_test.go:3: no nginx: not found\nFAIL\t1 packages, 1 failed; 0 tests passed, 1 skipped\n", false},
		"unbuilt":  {unbuilt, "u_test.go:3:33: too many return values\nFAIL\tu [build failed]\nFAIL\t1 packages, 1 failed; 0 tests passed, 0 skipped\n", false},
		"cut":      {cut, "    a_test.go:3: so far\nFAIL\tc\tdid not end\nFAIL\t1 packages, 1 failed; 0 tests passed, 0 skipped\n", false},
		"recipes":  {recipes, "ok  \tx/docs/recipes\t1s\nrecipes that were run as they are written: apache2, nginx\nok  \t1 packages, 0 failed; 1 tests passed, 0 skipped\n", true},
		"nothing":  {"", "FAIL\t0 packages, 0 failed; 0 tests passed, 0 skipped\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if well := r.close(); well != c.well || out.String() != c.out {
				t.Errorf("well is %v, want %v; printed\n%s\nwant\n%s", well, c.well, out.String(), c.out)
			}
		})
	}
}

func TestReportRefusesOtherText(t *testing.T) {
	if err := newReport(&strings.Builder{}).read(strings.NewReader("ok p 1s\n")); err == nil {
		t.Error("text that is no JSON was taken")
	}
}
