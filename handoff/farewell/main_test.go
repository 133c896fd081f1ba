package farewell

import (
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
)

func TestMain(m *testing.M) { apptest.Main(m) }
