package federation

var queryRoutes = []Route{}
