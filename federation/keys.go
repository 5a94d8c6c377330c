package federation

var keyRoutes = []Route{}
