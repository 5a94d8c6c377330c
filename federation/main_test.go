package federation_test

import (
	"testing"

	"conclave/internal/testserver"
)

func TestMain(m *testing.M) { testserver.Main(m) }
